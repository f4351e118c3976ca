//! Verbs on organisations, and the first start.

use super::routes::Touched;
use super::rows::{free_stamp, free_stamp_in, parsed, raw, time};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Store, StoreError};
use crate::credential::{Grants, Operator, ScopedTo};
use crate::ids::OrganisationId;
use crate::model::{NewApiKey, Organisation, Page, check_name};
use crate::secret::Secret;

const FREE_STAMP: &str = free_stamp_in!("organisations");

impl Store {
    /// On a store without organisations, makes one and an `ak_` key for it that is also the
    /// operator's. `None` if there are any.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn bootstrap(&self) -> Result<Option<(Organisation, Secret<String>)>, StoreError> {
        let mut tx = self.0.db.write().await?;
        let sql = "SELECT EXISTS (SELECT 1 FROM organisations)";
        if sql::query(sql).fetch_scalar(&mut tx).await? {
            return Ok(None);
        }
        let organisation = self.insert_organisation(&mut tx, "default", None).await?;
        let new = NewApiKey {
            name: "first key".to_owned(),
            expires_at: None,
            grants: Grants::bootstrap(),
        };
        let (entry, _, text) = self.insert_key(&mut tx, organisation.id, &new).await?;
        let routes = Some(Touched::organisation(organisation.id));
        self.commit(tx, After { routes, ..After::key_added(entry) }).await?;
        Ok(Some((organisation, text)))
    }

    /// Makes an organisation.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for an empty or oversized name.
    pub async fn create_organisation(
        &self,
        _by: &Operator,
        name: &str,
        max_phone_numbers: Option<u32>,
    ) -> Result<Organisation, StoreError> {
        check_name("name", name)?;
        let mut tx = self.0.db.write().await?;
        let organisation = self.insert_organisation(&mut tx, name, max_phone_numbers).await?;
        self.commit(tx, After::routes(Touched::organisation(organisation.id))).await?;
        Ok(organisation)
    }

    /// One's own organisation.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is gone.
    pub async fn organisation(
        &self,
        scope: &ScopedTo<OrganisationId>,
    ) -> Result<Organisation, StoreError> {
        let mut tx = self.0.db.read().await?;
        let row = sql::query("SELECT * FROM organisations WHERE id = ?")
            .bind(scope.organisation().to_string())
            .fetch_optional(&mut *tx)
            .await?;
        row.as_ref().map(from_row).ok_or_else(|| StoreError::not_found("Organization"))?
    }

    /// All organisations, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn organisations(
        &self,
        _by: &Operator,
        page: Page,
    ) -> Result<Vec<Organisation>, StoreError> {
        let mut query = QueryBuilder::new("SELECT t.* FROM organisations t WHERE TRUE");
        super::rows::paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        query.build().fetch_all(&mut *tx).await?.iter().map(from_row).collect()
    }

    async fn insert_organisation(
        &self,
        tx: &mut Connection,
        name: &str,
        max_phone_numbers: Option<u32>,
    ) -> Result<Organisation, StoreError> {
        let id = OrganisationId::random();
        let at = free_stamp(tx, FREE_STAMP, self.now()).await?;
        sql::query("INSERT INTO organisations VALUES (?, ?, ?, ?, ?)")
            .bind(id.to_string())
            .bind(name)
            .bind(max_phone_numbers)
            .bind(at.micros())
            .bind(at.micros())
            .execute(&mut *tx)
            .await?;
        let name = name.to_owned();
        Ok(Organisation { id, name, max_phone_numbers, created_at: at, updated_at: at })
    }
}

fn from_row(row: &Row) -> Result<Organisation, StoreError> {
    Ok(Organisation {
        id: parsed(row, "id")?,
        name: raw(row, "name")?,
        max_phone_numbers: raw(row, "max_phone_numbers")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
