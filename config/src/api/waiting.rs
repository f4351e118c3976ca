//! Requests that wait for workflows to run, or for a language model: how many there may be, and what becomes
//! of them when the node stops.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::Api;
use super::error::ApiError;
use crate::ids::OrganisationId;
use crate::limits::WORKFLOW_SYNC_RUNS;

/// They may take one of so many of the requests there may be.
const PART: usize = 4;

/// The runs that requests wait for. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<watch::Sender<Runs>>);

#[derive(Debug, Default)]
struct Runs {
    /// How many there are of each organisation.
    of: HashMap<OrganisationId, usize>,
    /// They are to end.
    stopping: bool,
}

/// A place among them; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place(Waiting, OrganisationId);

impl Waiting {
    /// Ends all of them, and returns when the last has written how it ended. No others begin.
    pub async fn stop(&self) {
        self.0.send_modify(|runs| runs.stopping = true);
        let _ = self.0.subscribe().wait_for(|runs| runs.of.is_empty()).await; // the sender is here
    }

    /// Returns when they are to end.
    pub(super) async fn stopped(&self) {
        let _ = self.0.subscribe().wait_for(|runs| runs.stopping).await;
    }

    /// A place, unless the organisation has as many as it may, or all of them have `most`: requests that
    /// wait take room from the others.
    fn take(&self, organisation: OrganisationId, most: usize) -> Option<Place> {
        let taken = self.0.send_if_modified(|runs| runs.take(organisation, most));
        taken.then(|| Place(self.clone(), organisation))
    }
}

impl Runs {
    fn take(&mut self, organisation: OrganisationId, most: usize) -> bool {
        if self.stopping || self.of.values().sum::<usize>() >= most {
            return false;
        }
        let own = self.of.entry(organisation).or_default();
        let fits = *own < WORKFLOW_SYNC_RUNS.value_usize();
        if fits {
            *own += 1;
        }
        fits
    }

    fn free(&mut self, organisation: OrganisationId) {
        if let Some(own) = self.of.get_mut(&organisation) {
            *own -= 1;
            if *own == 0 {
                self.of.remove(&organisation);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.send_modify(|runs| runs.free(self.1));
    }
}

impl Api {
    /// A place for a request of this organisation that waits for a run.
    pub(super) fn place(&self, organisation: OrganisationId) -> Result<Place, ApiError> {
        let most = (self.options.max_concurrent_requests / PART).max(1);
        let place = self.waiting.take(organisation, most);
        place.ok_or(ApiError::Busy("Too many workflows run that requests wait for"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_stops_them_waits_for_the_last_and_lets_no_other_in() {
        let (waiting, organisation) = (Waiting::default(), OrganisationId::random());
        let place = waiting.take(organisation, 9).unwrap();
        let mut stop = std::pin::pin!(waiting.stop());
        assert!(futures_util::poll!(&mut stop).is_pending());
        waiting.stopped().await;
        assert!(waiting.take(organisation, 9).is_none());
        drop(place);
        stop.await;
    }

    #[test]
    fn all_organisations_together_have_so_many() {
        let waiting = Waiting::default();
        let [a, b] = [OrganisationId::random(), OrganisationId::random()];
        let places = [waiting.take(a, 2).unwrap(), waiting.take(b, 2).unwrap()];
        assert!(waiting.take(b, 2).is_none());
        drop(places);
        assert!(waiting.take(b, 2).is_some());
    }
}
