//! Verbs on decision records: bounded, newest kept.
//!
//! Each organisation has its own allowance, and callers nobody could place share another, so that no
//! flood of strangers pushes out what a customer wants to read.

use super::rows::{and, free_stamp, free_stamp_in, json, paged, time, to_json};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{Store, StoreError};
use crate::credential::{Operator, ScopedTo};
use crate::ids::OrganisationId;
use crate::model::{Decision, DecisionFilter, Page};

const FREE_STAMP: &str = free_stamp_in!("decisions");

impl Store {
    /// Why the organisation's calls were refused, newest first. Trunks of others that were looked at
    /// are left out.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn decisions(
        &self,
        scope: &ScopedTo<OrganisationId>,
        filter: &DecisionFilter,
        page: Page,
    ) -> Result<Vec<Decision>, StoreError> {
        let own = scope.organisation();
        let mut query = QueryBuilder::new("SELECT t.* FROM decisions t WHERE t.organization_id = ");
        query.push_bind(own.to_string());
        let mut decisions = self.list_decisions(query, filter, page).await?;
        for decision in &mut decisions {
            decision.trunks_considered.retain(|trunk| trunk.organization_id == own);
        }
        Ok(decisions)
    }

    /// Why calls were refused that nobody could place, newest first: for the operator.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn unattributed_decisions(
        &self,
        _by: &Operator,
        filter: &DecisionFilter,
        page: Page,
    ) -> Result<Vec<Decision>, StoreError> {
        let sql = "SELECT t.* FROM decisions t WHERE t.organization_id IS NULL";
        self.list_decisions(QueryBuilder::new(sql), filter, page).await
    }

    async fn list_decisions(
        &self,
        mut query: QueryBuilder,
        filter: &DecisionFilter,
        page: Page,
    ) -> Result<Vec<Decision>, StoreError> {
        and(&mut query, "t.source_ip =", filter.source_ip.as_deref());
        and(&mut query, "t.rule =", filter.rule.as_deref());
        and(&mut query, "t.called_number =", filter.called_number.as_deref());
        and(&mut query, "t.created_at >=", filter.after.map(|at| at.micros()));
        and(&mut query, "t.created_at <=", filter.before.map(|at| at.micros()));
        paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        query.build().fetch_all(&mut tx).await?.iter().map(from_row).collect()
    }
}

/// Adds a record, unless there is one with its id; says which.
pub(super) async fn insert(tx: &mut Connection, decision: &Decision) -> Result<bool, StoreError> {
    let at = free_stamp(tx, FREE_STAMP, decision.at).await?;
    let done = sql::query(
        "INSERT INTO decisions
             (id, organization_id, source_ip, called_number, rule, record, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(decision.id.to_string())
    .bind(decision.organization_id.map(|id| id.to_string()))
    .bind(&decision.source_ip)
    .bind(decision.called_number.as_deref())
    .bind(decision.rule.as_ref())
    .bind(to_json(decision)?)
    .bind(at.micros())
    .execute(tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn trim(
    tx: &mut Connection,
    organisation: Option<OrganisationId>,
    kept: u32,
) -> Result<(), StoreError> {
    // Two texts: neither database has one for both that uses the index.
    let query = match organisation {
        Some(id) => sql::query(
            "DELETE FROM decisions WHERE organization_id = ?1 AND created_at <=
                 (SELECT created_at FROM decisions WHERE organization_id = ?1
                  ORDER BY created_at DESC LIMIT 1 OFFSET ?2)",
        )
        .bind(id.to_string()),
        None => sql::query(
            "DELETE FROM decisions WHERE organization_id IS NULL AND created_at <=
                 (SELECT created_at FROM decisions WHERE organization_id IS NULL
                  ORDER BY created_at DESC LIMIT 1 OFFSET ?)",
        ),
    };
    query.bind(kept).execute(tx).await?;
    Ok(())
}

fn from_row(row: &Row) -> Result<Decision, StoreError> {
    let mut decision: Decision = json(row, "record")?;
    decision.at = time(row, "created_at")?; // the record may have had to make way by a microsecond
    Ok(decision)
}
