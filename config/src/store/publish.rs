//! Publishing a version, and the two slots of phone numbers: one verb, all or nothing.

use std::collections::HashSet;

use super::routes::Touched;
use super::sql::{self, Connection};
use super::{After, Change, Store, StoreError, numbers, versions};
use crate::clock::Timestamp;
use crate::credential::ScopedTo;
use crate::ids::{AgentId, AgentVersionId, OrganisationId};
use crate::model::{
    AgentVersion, E164, InstructionsStatus, PhoneNumber, Publish, SlotDirection, VersionRef,
};

impl Store {
    /// Publishes a version (again, if it is already), clears the numbers to be unassigned of any
    /// version of its agent, then points the numbers to be assigned at it. A number in both lists
    /// ends up assigned. Returns the numbers written or cleared, each once.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown agent, version or number (naming it): then nothing is
    /// published either. [`StoreError::Refused`] while instructions are being generated, or when
    /// they are dirty and not edited by hand.
    pub async fn publish(
        &self,
        scope: &ScopedTo<OrganisationId>,
        agent: AgentId,
        which: VersionRef,
        publish: Publish,
    ) -> Result<Vec<PhoneNumber>, StoreError> {
        let mut tx = self.0.db.write().await?;
        self.load_agent(&mut tx, scope, agent).await?;
        let mut row = versions::load(&mut tx, agent, which).await?;
        refuse_unready(&row.version)?;
        let now = self.now();
        let note = Change::of(scope, "version.publish").object(row.version.id);
        let note = note.before(&row.version)?;
        if !row.version.published {
            row.version.published = true;
            row.version.updated_at = now;
            versions::update(&mut tx, &row).await?;
        }
        let assigned = publish.phone_numbers.unwrap_or_default();
        let unassigned = publish.unassign_phone_numbers.unwrap_or_default();
        let slots = Slots { direction: publish.direction, version: row.version.id, agent, now };
        tx.note(note.after(&row.version)?);
        let mut affected: Vec<E164> = Vec::new();
        for number in unassigned {
            numbers::load(&mut tx, scope, &number).await?;
            if slots.clear(&mut tx, &number).await? {
                affected.push(number);
            }
        }
        for number in assigned {
            numbers::load(&mut tx, scope, &number).await?;
            slots.assign(&mut tx, &number).await?;
            affected.push(number);
        }
        let mut seen = HashSet::new();
        let mut written = Vec::new();
        for number in affected {
            if seen.insert(number.clone()) {
                let number = numbers::load(&mut tx, scope, &number).await?;
                let note = Change::of(scope, "number.assign").object(&number.phone_number);
                tx.note(note.after(&number)?);
                written.push(number);
            }
        }
        let numbers = seen.into_iter().map(|number| number.to_string()).collect();
        let touched = Touched { numbers, ..Touched::agent(agent) };
        self.commit(tx, After::routes(touched)).await?;
        Ok(written)
    }
}

fn refuse_unready(version: &AgentVersion) -> Result<(), StoreError> {
    if version.instructions_status == InstructionsStatus::Generating {
        return Err(StoreError::refused("Instructions are being generated"));
    }
    if version.instructions_dirty && !version.instructions_manually_edited {
        let why = "Instructions are out of date: generate them again or edit them";
        return Err(StoreError::refused(why));
    }
    Ok(())
}

/// What is written to the slots of each number.
struct Slots {
    direction: SlotDirection,
    version: AgentVersionId,
    agent: AgentId,
    now: Timestamp,
}

impl Slots {
    async fn assign(&self, tx: &mut Connection, number: &E164) -> Result<(), StoreError> {
        sql::query(
            "UPDATE phone_numbers SET
                 inbound_agent_version_id =
                     CASE WHEN ?2 THEN ?1 ELSE inbound_agent_version_id END,
                 outbound_agent_version_id =
                     CASE WHEN ?3 THEN ?1 ELSE outbound_agent_version_id END,
                 updated_at = ?4
             WHERE phone_number = ?5",
        )
        .bind(self.version.to_string())
        .bind(self.direction.inbound())
        .bind(self.direction.outbound())
        .bind(self.now.micros())
        .bind(number.as_str())
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Clears the chosen slots that hold this agent; says whether any did.
    async fn clear(&self, tx: &mut Connection, number: &E164) -> Result<bool, StoreError> {
        let mut cleared = false;
        let (inbound, outbound) = (self.direction.inbound(), self.direction.outbound());
        for (is_meant, sql) in [
            (
                inbound,
                "UPDATE phone_numbers SET inbound_agent_version_id = NULL, updated_at = ?1
                 WHERE phone_number = ?2 AND inbound_agent_version_id IN
                     (SELECT id FROM agent_versions WHERE agent_id = ?3)",
            ),
            (
                outbound,
                "UPDATE phone_numbers SET outbound_agent_version_id = NULL, updated_at = ?1
                 WHERE phone_number = ?2 AND outbound_agent_version_id IN
                     (SELECT id FROM agent_versions WHERE agent_id = ?3)",
            ),
        ] {
            if is_meant {
                let done = sql::query(sql)
                    .bind(self.now.micros())
                    .bind(number.as_str())
                    .bind(self.agent.to_string())
                    .execute(&mut *tx)
                    .await?;
                cleared |= done.rows_affected() > 0;
            }
        }
        Ok(cleared)
    }
}
