//! Verbs on trunks.

use super::routes::Touched;
use super::rows::{
    and_holds, and_period, free_stamp, free_stamp_in, json_opt, paged, parsed, raw, time,
    to_json_opt,
};
use super::sql::{self, Connection, QueryBuilder};
use super::{After, Change, Store, StoreError};
use crate::credential::{Operator, ScopedTo};
use crate::ids::{OrganisationId, TrunkId};
use crate::model::{
    InboundConfig, Invalid, NewTrunk, OutboundConfig, Page, Trunk, TrunkChange, TrunkFilter,
};
use crate::secret::Secret;

const FREE_STAMP: &str = free_stamp_in!("trunks");

/// A slug is this letter, so that it is never taken for a number, and as many symbols.
const SLUG_FIRST: char = 't';
const SLUG_SYMBOLS: usize = 10;
/// 32 symbols that are not mistaken for one another when read aloud or typed.
const SLUG_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// What an inbound password is sealed for.
pub(super) fn inbound_owner(id: TrunkId) -> String {
    format!("trunk:{id}:inbound")
}

/// What an outbound password is sealed for.
pub(super) fn outbound_owner(id: TrunkId) -> String {
    format!("trunk:{id}:outbound")
}

/// A trunk's row, passwords sealed.
struct Row {
    trunk: Trunk,
    slug: String,
    inbound_password: Option<Vec<u8>>,
    outbound_password: Option<Vec<u8>>,
}

/// A trunk to be made; passwords still in its configs.
pub(super) struct NewRow {
    pub(super) id: TrunkId,
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) managed_account_id: Option<String>,
    pub(super) inbound: Option<InboundConfig>,
    pub(super) outbound: Option<OutboundConfig>,
}

impl Store {
    /// Makes a trunk of the customer's own.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a config that lacks a password, [`StoreError::Conflict`] when
    /// another trunk has the same inbound digest user: credentials must name one trunk.
    pub async fn create_trunk(
        &self,
        scope: &ScopedTo<OrganisationId>,
        new: NewTrunk,
    ) -> Result<Trunk, StoreError> {
        new.validate()?;
        let mut tx = self.0.db.write().await?;
        let made = NewRow {
            id: TrunkId::random(),
            slug: fresh_slug()?,
            name: new.name,
            managed_account_id: None,
            inbound: new.inbound_config,
            outbound: new.outbound_config,
        };
        let trunk = self.insert_trunk(&mut tx, scope, made).await?;
        tx.note(Change::of(scope, "trunk.create").object(trunk.id).after(&trunk)?);
        self.commit(tx, After::routes(Touched::trunk(trunk.id))).await?;
        Ok(trunk)
    }

    /// Makes a trunk's row, of the customer's own or a managed one.
    pub(super) async fn insert_trunk(
        &self,
        tx: &mut Connection,
        scope: &ScopedTo<OrganisationId>,
        made: NewRow,
    ) -> Result<Trunk, StoreError> {
        let at = free_stamp(tx, FREE_STAMP, self.now()).await?;
        let mut row = Row {
            trunk: Trunk {
                id: made.id,
                organization_id: scope.organisation(),
                name: made.name,
                managed_account_id: made.managed_account_id,
                inbound_config: None,
                outbound_config: None,
                inbound_uri: self.0.options.sip_host.trunk_uri(&made.slug),
                created_at: at,
                updated_at: at,
            },
            slug: made.slug,
            inbound_password: None,
            outbound_password: None,
        };
        self.set_inbound(&mut row, made.inbound)?;
        self.set_outbound(&mut row, made.outbound)?;
        refuse_tie(tx, &row.trunk).await?;
        insert(tx, &row).await?;
        Ok(row.trunk)
    }

    /// One trunk.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such trunk.
    pub async fn trunk(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: TrunkId,
    ) -> Result<Trunk, StoreError> {
        let mut tx = self.0.db.read().await?;
        self.load_trunk(&mut tx, scope, id).await.map(|row| row.trunk)
    }

    /// The organisation's trunks, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn trunks(
        &self,
        scope: &ScopedTo<OrganisationId>,
        filter: &TrunkFilter,
        page: Page,
    ) -> Result<Vec<Trunk>, StoreError> {
        let mut query = QueryBuilder::new("SELECT t.* FROM trunks t WHERE t.organization_id = ");
        query.push_bind(scope.organisation().to_string());
        and_holds(&mut query, "t.name_folded", filter.name.as_ref());
        and_period(&mut query, &filter.period);
        paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        let rows = query.build().fetch_all(&mut tx).await?;
        rows.iter().map(|row| self.trunk_from_row(row).map(|row| row.trunk)).collect()
    }

    /// Changes a trunk of the customer's own.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] for a managed trunk; otherwise as
    /// [`Store::create_trunk`].
    pub async fn update_trunk(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: TrunkId,
        change: TrunkChange,
    ) -> Result<Trunk, StoreError> {
        change.validate()?;
        let mut tx = self.0.db.write().await?;
        let mut row = self.load_trunk(&mut tx, scope, id).await?;
        refuse_managed(&row.trunk)?;
        let note = Change::of(scope, "trunk.update").object(id).before(&row.trunk)?;
        if let Some(name) = change.name {
            row.trunk.name = name;
        }
        if let Some(config) = change.inbound_config {
            self.set_inbound(&mut row, config)?;
        }
        if let Some(config) = change.outbound_config {
            self.set_outbound(&mut row, config)?;
        }
        row.trunk.updated_at = self.now();
        refuse_tie(&mut tx, &row.trunk).await?;
        update(&mut tx, &row).await?;
        tx.note(note.after(&row.trunk)?);
        self.commit(tx, After::routes(Touched::trunk(row.trunk.id))).await?;
        Ok(row.trunk)
    }

    /// Removes a trunk of the customer's own; with `force` its numbers too.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] for a managed trunk;
    /// [`StoreError::Conflict`] when numbers are attached and `force` is not set.
    pub async fn delete_trunk(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: TrunkId,
        force: bool,
    ) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let trunk = self.load_trunk(&mut tx, scope, id).await?.trunk;
        refuse_managed(&trunk)?;
        let numbers = delete(&mut tx, id).await?;
        if !numbers.is_empty() && !force {
            let (count, s) = (numbers.len(), if numbers.len() == 1 { "" } else { "s" });
            let why = format!("Trunk still carries {count} phone number{s}");
            return Err(StoreError::Conflict(why)); // and the numbers are back with the roll-back
        }
        for number in &numbers {
            tx.note(Change::of(scope, "number.delete").object(number));
        }
        tx.note(Change::of(scope, "trunk.delete").object(id).before(&trunk)?);
        let touched = Touched { numbers, ..Touched::trunk(id) };
        self.commit(tx, After::routes(touched)).await
    }

    /// Seals every password and token again that is sealed with an older key than the sealer's
    /// current one, and says how many. The last step of a key rotation.
    ///
    /// # Errors
    /// [`StoreError::Fault`] when one does not open: then nothing is changed.
    pub async fn reseal(&self) -> Result<usize, StoreError> {
        let mut tx = self.0.db.write().await?;
        let mut sealed = 0;
        for row in sql::query("SELECT * FROM trunks").fetch_all(&mut tx).await? {
            let mut row = self.trunk_from_row(&row)?;
            let (inbound, outbound) = (inbound_owner(row.trunk.id), outbound_owner(row.trunk.id));
            sealed += self.reseal_one(&inbound, row.inbound_password.as_mut())?;
            sealed += self.reseal_one(&outbound, row.outbound_password.as_mut())?;
            update(&mut tx, &row).await?;
        }
        sealed += self.reseal_tokens(&mut tx).await?;
        sealed += self.reseal_default_runtimes(&mut tx).await?;
        sealed += self.reseal_orders(&mut tx).await?;
        sealed += self.reseal_webhooks(&mut tx).await?;
        tx.note(Change::of_node(Operator::by_process().actor(), "secrets.reseal"));
        self.commit(tx, After::routes(Touched::everything())).await?;
        Ok(sealed)
    }

    pub(super) fn reseal_one(
        &self,
        owner: &str,
        sealed: Option<&mut Vec<u8>>,
    ) -> Result<usize, StoreError> {
        let sealer = &self.0.options.sealer;
        match sealed {
            Some(sealed) if sealer.is_stale(sealed) => {
                *sealed = sealer.seal(owner, sealer.open_sealed(owner, sealed)?.expose())?;
                Ok(1)
            }
            _ => Ok(0),
        }
    }

    fn set_inbound(&self, row: &mut Row, config: Option<InboundConfig>) -> Result<(), StoreError> {
        let stored = row.inbound_password.take();
        row.trunk.inbound_config = config;
        let Some(config) = &mut row.trunk.inbound_config else { return Ok(()) };
        if config.auth_username.is_some() {
            let given = config.auth_password.take();
            let owner = inbound_owner(row.trunk.id);
            row.inbound_password = self.next_password(&owner, given, stored)?;
            if row.inbound_password.is_none() {
                let message = "must be given with auth_username";
                return Err(Invalid::new("inbound_config.auth_password", message).into());
            }
        }
        config.auth_password_set = row.inbound_password.is_some();
        Ok(())
    }

    fn set_outbound(
        &self,
        row: &mut Row,
        config: Option<OutboundConfig>,
    ) -> Result<(), StoreError> {
        let stored = row.outbound_password.take();
        let before = std::mem::replace(&mut row.trunk.outbound_config, config);
        let Some(config) = &mut row.trunk.outbound_config else { return Ok(()) };
        let given = config.auth_password.take();
        let moved =
            before.is_some_and(|before| !before.address.eq_ignore_ascii_case(&config.address));
        if given.is_none() && stored.is_some() && moved {
            let message = "must be given again with another address";
            return Err(Invalid::new("outbound_config.auth_password", message).into());
        }
        let owner = outbound_owner(row.trunk.id);
        row.outbound_password = self.next_password(&owner, given, stored)?;
        if row.outbound_password.is_none() {
            return Err(Invalid::new("outbound_config.auth_password", "must be given").into());
        }
        config.auth_password_set = true;
        Ok(())
    }

    /// The password to keep: the one that is given, else the one that was.
    fn next_password(
        &self,
        owner: &str,
        given: Option<Secret<String>>,
        stored: Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match given {
            Some(given) => Ok(Some(self.0.options.sealer.seal(owner, given.expose())?)),
            None => Ok(stored),
        }
    }

    async fn load_trunk(
        &self,
        tx: &mut Connection,
        scope: &ScopedTo<OrganisationId>,
        id: TrunkId,
    ) -> Result<Row, StoreError> {
        let row = sql::query("SELECT * FROM trunks WHERE id = ? AND organization_id = ?")
            .bind(id.to_string())
            .bind(scope.organisation().to_string())
            .fetch_optional(&mut *tx)
            .await?
            .ok_or_else(|| StoreError::not_found("Trunk"))?;
        self.trunk_from_row(&row)
    }

    fn trunk_from_row(&self, row: &sql::Row) -> Result<Row, StoreError> {
        let slug: String = raw(row, "slug")?;
        let inbound_password: Option<Vec<u8>> = raw(row, "inbound_password")?;
        let outbound_password: Option<Vec<u8>> = raw(row, "outbound_password")?;
        let mut inbound_config: Option<InboundConfig> = json_opt(row, "inbound_config")?;
        if let Some(config) = &mut inbound_config {
            config.auth_password_set = inbound_password.is_some();
        }
        let mut outbound_config: Option<OutboundConfig> = json_opt(row, "outbound_config")?;
        if let Some(config) = &mut outbound_config {
            config.auth_password_set = outbound_password.is_some();
        }
        let trunk = Trunk {
            id: parsed(row, "id")?,
            organization_id: parsed(row, "organization_id")?,
            name: raw(row, "name")?,
            managed_account_id: raw(row, "managed_account_id")?,
            inbound_config,
            outbound_config,
            inbound_uri: self.0.options.sip_host.trunk_uri(&slug),
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
        };
        Ok(Row { trunk, slug, inbound_password, outbound_password })
    }
}

/// Managed trunks are read-only here.
pub(super) fn refuse_managed(trunk: &Trunk) -> Result<(), StoreError> {
    match trunk.managed_account_id {
        Some(_) => Err(StoreError::refused("Trunk is managed and cannot be changed")),
        None => Ok(()),
    }
}

fn username(trunk: &Trunk) -> Option<&str> {
    trunk.inbound_config.as_ref()?.auth_username.as_deref()
}

/// Every trunk has a slug of its own, so addresses that overlap are no tie. Digest credentials
/// alone must name one trunk: two trunks with one user would be told apart by nothing.
async fn refuse_tie(tx: &mut Connection, trunk: &Trunk) -> Result<(), StoreError> {
    let Some(username) = username(trunk) else { return Ok(()) };
    let other = sql::query(
        "SELECT id, organization_id, name FROM trunks WHERE inbound_username = ? AND id <> ?",
    )
    .bind(username)
    .bind(trunk.id.to_string())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(other) = other else { return Ok(()) };
    let owner: OrganisationId = parsed(&other, "organization_id")?;
    Err(StoreError::Conflict(if owner == trunk.organization_id {
        let (name, id): (String, TrunkId) = (raw(&other, "name")?, parsed(&other, "id")?);
        format!("inbound_config.auth_username is already that of trunk \"{name}\" ({id})")
    } else {
        "inbound_config.auth_username is already taken".to_owned()
    }))
}

async fn insert(tx: &mut Connection, row: &Row) -> Result<(), StoreError> {
    let trunk = &row.trunk;
    sql::query("INSERT INTO trunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(trunk.id.to_string())
        .bind(trunk.organization_id.to_string())
        .bind(&trunk.name)
        .bind(trunk.name.to_lowercase())
        .bind(&row.slug)
        .bind(trunk.managed_account_id.as_deref())
        .bind(to_json_opt(trunk.inbound_config.as_ref())?)
        .bind(username(trunk))
        .bind(row.inbound_password.as_deref())
        .bind(to_json_opt(trunk.outbound_config.as_ref())?)
        .bind(row.outbound_password.as_deref())
        .bind(trunk.created_at.micros())
        .bind(trunk.updated_at.micros())
        .execute(&mut *tx)
        .await?;
    Ok(())
}

async fn update(tx: &mut Connection, row: &Row) -> Result<(), StoreError> {
    let trunk = &row.trunk;
    sql::query(
        "UPDATE trunks SET name = ?, name_folded = ?, inbound_config = ?, inbound_username = ?,
             inbound_password = ?, outbound_config = ?, outbound_password = ?, updated_at = ?
         WHERE id = ?",
    )
    .bind(&trunk.name)
    .bind(trunk.name.to_lowercase())
    .bind(to_json_opt(trunk.inbound_config.as_ref())?)
    .bind(username(trunk))
    .bind(row.inbound_password.as_deref())
    .bind(to_json_opt(trunk.outbound_config.as_ref())?)
    .bind(row.outbound_password.as_deref())
    .bind(trunk.updated_at.micros())
    .bind(trunk.id.to_string())
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Removes a trunk and returns the numbers that went with it.
pub(super) async fn delete(tx: &mut Connection, id: TrunkId) -> Result<Vec<String>, StoreError> {
    let sql = "DELETE FROM phone_numbers WHERE trunk_id = ? RETURNING phone_number";
    let numbers = sql::query(sql).bind(id.to_string()).fetch_scalars(&mut *tx).await?;
    sql::query("DELETE FROM trunks WHERE id = ?").bind(id.to_string()).execute(&mut *tx).await?;
    Ok(numbers)
}

/// 50 random bits: not a secret, and not to be guessed either.
pub(super) fn fresh_slug() -> Result<String, StoreError> {
    let mut random = [0_u8; SLUG_SYMBOLS];
    getrandom::fill(&mut random).map_err(|error| {
        tracing::error!(%error, "no randomness for a slug");
        StoreError::Fault
    })?;
    let symbol = |byte: u8| SLUG_ALPHABET.get(usize::from(byte % 32)).copied().map(char::from);
    Ok(std::iter::once(SLUG_FIRST).chain(random.into_iter().filter_map(symbol)).collect())
}
