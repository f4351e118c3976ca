//! Verbs on orders: the numbers that organisations buy through managed accounts, and managed trunks.

use std::time::Duration;

use super::routes::Touched;
use super::rows::{free_stamp, free_stamp_in, parsed, raw, small, time};
use super::sql::{self, Connection, Row};
use super::trunks::NewRow;
use super::{After, Change, Store, StoreError, numbers, trunks};
use crate::clock::Timestamp;
use crate::credential::{Operator, ScopedTo};
use crate::ids::{OrderId, OrganisationId, TrunkId};
use crate::managed::{LEASE, Line, NumberOrder, OrderState};
use crate::model::{E164, NewManagedTrunk, PhoneNumber, Trunk};
use crate::secret::Secret;

const FREE_STAMP: &str = free_stamp_in!("number_orders");

/// What an order's password is sealed for.
fn password_owner(id: OrderId) -> String {
    format!("order:{id}")
}

impl Store {
    /// Writes down that an organisation is going to buy a number, before anybody is asked for it. The
    /// order belongs to the caller for as long as an attempt may take.
    ///
    /// # Errors
    /// [`StoreError::Refused`] at the organisation's limit; [`StoreError::Conflict`] when somebody has
    /// the number, buys it, or gives it back.
    pub async fn open_order(
        &self,
        scope: &ScopedTo<OrganisationId>,
        account: &str,
        number: &E164,
    ) -> Result<NumberOrder, StoreError> {
        let mut tx = self.0.db.write().await?;
        if numbers::exists(&mut tx, number).await? {
            return Err(StoreError::Conflict("Phone number is not available".to_owned()));
        }
        self.refuse_over_limit(&mut tx, scope).await?;
        let at = free_stamp(&mut tx, FREE_STAMP, self.now()).await?;
        let slug = trunks::fresh_slug()?;
        let order = NumberOrder {
            id: OrderId::random(),
            organisation: scope.organisation(),
            account: account.to_owned(),
            phone_number: number.clone(),
            trunk_id: TrunkId::random(),
            inbound_uri: self.0.options.sip_host.trunk_uri(&slug),
            slug,
            password: Some(fresh_password()?),
            state: OrderState::Buying,
            attempts: 0,
            created_at: at,
        };
        self.insert_order(&mut tx, &order, at).await?;
        tx.note(Change::of(scope, "number.order").object(number));
        self.commit(tx, After::default()).await?;
        Ok(order)
    }

    /// Makes the trunk and the number of an order that the provider has filled. Once is enough: a second
    /// time returns the number as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the order was given up meanwhile.
    pub async fn fill_order(
        &self,
        order: &NumberOrder,
        line: Line,
    ) -> Result<PhoneNumber, StoreError> {
        let scope = ScopedTo::by_gateway(order.organisation);
        let mut tx = self.0.db.write().await?;
        let state = load(&mut tx, order.id).await?.map(|row| parsed(&row, "state")).transpose()?;
        match state {
            Some(OrderState::Held) => {
                return numbers::load(&mut tx, &scope, &order.phone_number).await;
            }
            Some(OrderState::Buying) => {}
            Some(OrderState::Releasing) | None => return Err(StoreError::not_found("Order")),
        }
        let made = NewRow {
            id: order.trunk_id,
            slug: order.slug.clone(),
            name: format!("{} {}", order.account, order.phone_number),
            managed_account_id: Some(order.account.clone()),
            inbound: Some(line.inbound),
            outbound: Some(line.outbound),
        };
        let trunk = self.insert_trunk(&mut tx, &scope, made).await?;
        tx.note(Change::of(&scope, "trunk.create").object(trunk.id).after(&trunk)?);
        let number = &order.phone_number;
        self.insert_number(&mut tx, &scope, (number, order.trunk_id, false)).await?;
        let sql = "UPDATE number_orders SET state = 'held', password = NULL, updated_at = ?
                   WHERE id = ?";
        sql::query(sql)
            .bind(self.now().micros())
            .bind(order.id.to_string())
            .execute(&mut tx)
            .await?;
        let filled = numbers::load(&mut tx, &scope, number).await?;
        tx.note(Change::of(&scope, "number.create").object(number).after(&filled)?);
        let touched = Touched { trunks: vec![order.trunk_id], ..Touched::number(number) };
        self.commit(tx, After::routes(touched)).await?;
        Ok(filled)
    }

    /// An order will not be filled: what there is of it at the provider is to be given back.
    ///
    /// # Errors
    /// As the database fails. An order that is held stays so.
    pub async fn cancel_order(&self, id: OrderId) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let sql = "UPDATE number_orders SET state = 'releasing', due_at = ?1, updated_at = ?2
                   WHERE id = ?3 AND state = 'buying'";
        let now = self.now();
        sql::query(sql)
            .bind(later(now, LEASE))
            .bind(now.micros())
            .bind(id.to_string())
            .execute(&mut tx)
            .await?;
        self.commit(tx, After::default()).await
    }

    /// Another attempt is to be made, not before `pause` has passed.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn put_order_off(&self, id: OrderId, pause: Duration) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        sql::query("UPDATE number_orders SET due_at = ? WHERE id = ?")
            .bind(later(self.now(), pause))
            .bind(id.to_string())
            .execute(&mut tx)
            .await?;
        self.commit(tx, After::default()).await
    }

    /// Nothing is left of an order that was being given back.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn close_order(&self, id: OrderId) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        sql::query("DELETE FROM number_orders WHERE id = ? AND state = 'releasing'")
            .bind(id.to_string())
            .execute(&mut tx)
            .await?;
        self.commit(tx, After::default()).await
    }

    /// Takes up to `most` orders whose time has come and that nobody works on.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn claim_orders(&self, most: u32) -> Result<Vec<NumberOrder>, StoreError> {
        if !self.has_due_orders().await? {
            return Ok(Vec::new());
        }
        let mut tx = self.0.db.write().await?;
        let now = self.now();
        let sql = "SELECT * FROM number_orders WHERE state <> 'held' AND due_at <= ?
                   ORDER BY due_at LIMIT ?";
        let rows = sql::query(sql).bind(now.micros()).bind(i64::from(most));
        let rows = rows.fetch_all(&mut tx).await?;
        let mut orders = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut order = self.order_from_row(row)?;
            order.attempts = order.attempts.saturating_add(1);
            sql::query("UPDATE number_orders SET attempts = ?, due_at = ? WHERE id = ?")
                .bind(i64::from(order.attempts))
                .bind(later(now, LEASE))
                .bind(order.id.to_string())
                .execute(&mut tx)
                .await?;
            orders.push(order);
        }
        self.commit(tx, After::default()).await?;
        Ok(orders)
    }

    async fn has_due_orders(&self) -> Result<bool, StoreError> {
        let mut tx = self.0.db.read().await?;
        let sql = "SELECT count(*) FROM number_orders WHERE state <> 'held' AND due_at <= ?";
        let due: i64 = sql::query(sql).bind(self.now().micros()).fetch_scalar(&mut tx).await?;
        Ok(due > 0)
    }

    /// The numbers that somebody is buying or giving back at this moment.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn ordered_numbers(&self) -> Result<Vec<String>, StoreError> {
        let mut tx = self.0.db.read().await?;
        let sql = "SELECT phone_number FROM number_orders WHERE state <> 'held'";
        sql::query(sql).fetch_scalars(&mut tx).await
    }

    /// How long ago an order was made.
    #[must_use]
    pub fn age(&self, order: &NumberOrder) -> Duration {
        let micros = self.now().micros().saturating_sub(order.created_at.micros());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// Takes a bought number and its trunk away from its organisation; the provider is to be told.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has not bought the number at this account.
    pub async fn release_number(
        &self,
        scope: &ScopedTo<OrganisationId>,
        account: &str,
        number: &E164,
    ) -> Result<NumberOrder, StoreError> {
        let mut tx = self.0.db.write().await?;
        let sql = "SELECT * FROM number_orders WHERE phone_number = ? AND organization_id = ?
                   AND managed_account_id = ? AND state = 'held'";
        let row = sql::query(sql)
            .bind(number.as_str())
            .bind(scope.organisation().to_string())
            .bind(account)
            .fetch_optional(&mut tx)
            .await?;
        let row = row.ok_or_else(|| StoreError::not_found(format!("Phone number {number}")))?;
        let order = NumberOrder { state: OrderState::Releasing, ..self.order_from_row(&row)? };
        for sql in
            ["DELETE FROM phone_numbers WHERE trunk_id = ?", "DELETE FROM trunks WHERE id = ?"]
        {
            sql::query(sql).bind(order.trunk_id.to_string()).execute(&mut tx).await?;
        }
        let now = self.now();
        let sql = "UPDATE number_orders SET state = 'releasing', due_at = ?, updated_at = ?
                   WHERE id = ?";
        sql::query(sql)
            .bind(later(now, LEASE))
            .bind(now.micros())
            .bind(order.id.to_string())
            .execute(&mut tx)
            .await?;
        tx.note(Change::of(scope, "number.release").object(number));
        let touched = Touched { trunks: vec![order.trunk_id], ..Touched::number(number) };
        self.commit(tx, After::routes(touched)).await?;
        Ok(order)
    }

    /// Makes a managed trunk for an organisation, with its numbers: what the organisation then has and
    /// cannot change. The operator is not held to the organisation's limit of numbers.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown organisation; [`StoreError::Conflict`] when somebody has
    /// one of the numbers; otherwise as [`Store::create_trunk`].
    pub async fn create_managed_trunk(
        &self,
        by: &Operator,
        account: &str,
        new: NewManagedTrunk,
    ) -> Result<Trunk, StoreError> {
        new.validate()?;
        let scope = by.within(new.organization_id);
        self.organisation(&scope).await?;
        let mut tx = self.0.db.write().await?;
        let made = NewRow {
            id: TrunkId::random(),
            slug: trunks::fresh_slug()?,
            name: new.name,
            managed_account_id: Some(account.to_owned()),
            inbound: new.inbound_config,
            outbound: new.outbound_config,
        };
        let trunk = self.insert_trunk(&mut tx, &scope, made).await?;
        tx.note(Change::of(&scope, "trunk.create").object(trunk.id).after(&trunk)?);
        let mut touched = Touched::trunk(trunk.id);
        for number in new.phone_numbers {
            if numbers::exists(&mut tx, &number).await? {
                let why = format!("Phone number {number} is already registered");
                return Err(StoreError::Conflict(why));
            }
            self.insert_number(&mut tx, &scope, (&number, trunk.id, false)).await?;
            tx.note(Change::of(&scope, "number.create").object(&number));
            touched.numbers.push(number.to_string());
        }
        self.commit(tx, After::routes(touched)).await?;
        Ok(trunk)
    }

    /// Removes a managed trunk that the operator made, with its numbers.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the account has no such trunk; [`StoreError::Conflict`] for one that
    /// came with a bought number, which is released instead.
    pub async fn delete_managed_trunk(
        &self,
        by: &Operator,
        account: &str,
        id: TrunkId,
    ) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let sql = "SELECT organization_id FROM trunks WHERE id = ? AND managed_account_id = ?";
        let row =
            sql::query(sql).bind(id.to_string()).bind(account).fetch_optional(&mut tx).await?;
        let row = row.ok_or_else(|| StoreError::not_found("Trunk"))?;
        let scope = by.within(parsed(&row, "organization_id")?);
        let sql = "SELECT count(*) FROM number_orders WHERE trunk_id = ?";
        let bought: i64 = sql::query(sql).bind(id.to_string()).fetch_scalar(&mut tx).await?;
        if bought > 0 {
            let why = "The trunk came with a bought number: release the number instead";
            return Err(StoreError::Conflict(why.to_owned()));
        }
        let numbers = trunks::delete(&mut tx, id).await?;
        for number in &numbers {
            tx.note(Change::of(&scope, "number.delete").object(number));
        }
        tx.note(Change::of(&scope, "trunk.delete").object(id));
        self.commit(tx, After::routes(Touched { numbers, ..Touched::trunk(id) })).await
    }

    async fn insert_order(
        &self,
        tx: &mut Connection,
        order: &NumberOrder,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let password = order.password.as_ref().map(|password| {
            self.0.options.sealer.seal(&password_owner(order.id), password.expose())
        });
        sql::query("INSERT INTO number_orders VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(order.id.to_string())
            .bind(order.organisation.to_string())
            .bind(&order.account)
            .bind(order.phone_number.as_str())
            .bind(order.trunk_id.to_string())
            .bind(&order.slug)
            .bind(password.transpose()?)
            .bind(order.state.as_str())
            .bind(i64::from(order.attempts))
            .bind(later(at, LEASE))
            .bind(at.micros())
            .bind(at.micros())
            .execute(&mut *tx)
            .await?;
        Ok(())
    }

    fn order_from_row(&self, row: &Row) -> Result<NumberOrder, StoreError> {
        let id: OrderId = parsed(row, "id")?;
        let slug: String = raw(row, "slug")?;
        let sealed: Option<Vec<u8>> = raw(row, "password")?;
        let open =
            |sealed: Vec<u8>| self.0.options.sealer.open_sealed(&password_owner(id), &sealed);
        Ok(NumberOrder {
            id,
            organisation: parsed(row, "organization_id")?,
            account: raw(row, "managed_account_id")?,
            phone_number: parsed(row, "phone_number")?,
            trunk_id: parsed(row, "trunk_id")?,
            inbound_uri: self.0.options.sip_host.trunk_uri(&slug),
            slug,
            password: sealed.map(open).transpose()?,
            state: parsed(row, "state")?,
            attempts: small(row, "attempts")?,
            created_at: time(row, "created_at")?,
        })
    }

    /// Seals the passwords of orders again that are sealed with an older key, and says how many.
    pub(super) async fn reseal_orders(&self, tx: &mut Connection) -> Result<usize, StoreError> {
        let sql = "SELECT id, password FROM number_orders WHERE password IS NOT NULL";
        let mut count = 0;
        for row in sql::query(sql).fetch_all(&mut *tx).await? {
            let (id, mut sealed): (OrderId, Vec<u8>) =
                (parsed(&row, "id")?, raw(&row, "password")?);
            let done = self.reseal_one(&password_owner(id), Some(&mut sealed))?;
            if done > 0 {
                sql::query("UPDATE number_orders SET password = ? WHERE id = ?")
                    .bind(sealed)
                    .bind(id.to_string())
                    .execute(&mut *tx)
                    .await?;
            }
            count += done;
        }
        Ok(count)
    }
}

async fn load(tx: &mut Connection, id: OrderId) -> Result<Option<Row>, StoreError> {
    let sql = "SELECT * FROM number_orders WHERE id = ?";
    sql::query(sql).bind(id.to_string()).fetch_optional(&mut *tx).await
}

fn later(now: Timestamp, by: Duration) -> i64 {
    now.micros().saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX))
}

/// 128 random bits, with a letter of each case and a digit, as carriers demand.
fn fresh_password() -> Result<Secret<String>, StoreError> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| {
        tracing::error!(%error, "no randomness for a password");
        StoreError::Fault
    })?;
    Ok(Secret::new(format!("Tl1{:032x}", u128::from_be_bytes(random))))
}
