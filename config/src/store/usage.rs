//! What organisations used, added up when it is asked for.

use super::rows::raw;
use super::sql::{self, Row};
use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::ScopedTo;
use crate::ids::OrganisationId;
use crate::model::Usage;

impl Store {
    /// What the organisation used between two moments, both included. What began in between counts,
    /// with all its minutes.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn usage(
        &self,
        scope: &ScopedTo<OrganisationId>,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Usage, StoreError> {
        let organisation = scope.organisation().to_string();
        let mut tx = self.0.db.read().await?;
        let calls = sql::query(
            "SELECT count(*) AS total,
                    count(*) FILTER (WHERE direction = 'inbound') AS inbound,
                    count(*) FILTER (WHERE direction = 'outbound') AS outbound,
                    count(*) FILTER (WHERE channel IN ('telephone', 'webrtc')) AS voice,
                    CAST(coalesce(sum(duration), 0) AS BIGINT) AS seconds,
                    CAST(coalesce(sum(CASE WHEN channel IN ('telephone', 'webrtc')
                        THEN duration END), 0) AS BIGINT) AS voice_seconds
             FROM conversations
             WHERE organization_id = ? AND created_at >= ? AND created_at <= ?",
        )
        .bind(&organisation)
        .bind(from.micros())
        .bind(to.micros())
        .fetch_one(&mut tx)
        .await?;
        let runs = sql::query(
            "SELECT count(*) AS total,
                    count(*) FILTER (WHERE status = 'success') AS success,
                    count(*) FILTER (WHERE status = 'failed') AS failed
             FROM workflow_executions
             WHERE organization_id = ? AND created_at >= ? AND created_at <= ?",
        )
        .bind(&organisation)
        .bind(from.micros())
        .bind(to.micros())
        .fetch_one(&mut tx)
        .await?;
        added((from, to), &calls, &runs)
    }
}

fn added((from, to): (Timestamp, Timestamp), calls: &Row, runs: &Row) -> Result<Usage, StoreError> {
    let (total, voice): (i64, i64) = (raw(calls, "total")?, raw(calls, "voice")?);
    let (seconds, voice_seconds): (i64, i64) =
        (raw(calls, "seconds")?, raw(calls, "voice_seconds")?);
    Ok(Usage {
        from,
        to,
        voice_minutes: minutes(voice_seconds),
        voice_calls: voice,
        chat_minutes: minutes(seconds - voice_seconds),
        chat_calls: total - voice,
        total_calls: total,
        inbound_calls: raw(calls, "inbound")?,
        outbound_calls: raw(calls, "outbound")?,
        workflow_runs_total: raw(runs, "total")?,
        workflow_runs_success: raw(runs, "success")?,
        workflow_runs_failed: raw(runs, "failed")?,
    })
}

/// Minutes to a hundredth. A century of talk is as much as is told.
fn minutes(seconds: i64) -> f64 {
    let seconds = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
    (f64::from(seconds) / 0.6).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::minutes;

    #[test]
    fn minutes_are_told_to_a_hundredth() {
        let all = [0, 1, 59, 60, 90, 100, -1].map(minutes);
        assert_eq!(all, [0.0, 0.02, 0.98, 1.0, 1.5, 1.67, 0.0]);
    }
}
