//! The verb behind the journal: what calls write, many at a time.

use std::collections::HashSet;

use super::events::Teller;
use super::{After, Store, StoreError, conversations, decisions};
use crate::journal::Entry;

impl Store {
    /// Writes entries of the journal in order, all or none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when they should be tried again; anything else means that one of
    /// them is refused, probably for good.
    pub(crate) async fn write_entries(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let (mut teller, mut refused_of) = (Teller::new(self), HashSet::new());
        let mut job_added = false;
        for entry in entries {
            match entry {
                Entry::ConversationOpened(row) => {
                    if let Some(news) = self.insert_conversation(&mut tx, row).await? {
                        teller.tell(&mut tx, &news).await?;
                    }
                }
                Entry::ConversationChanged(change) => {
                    if let Some(news) = conversations::apply_change(&mut tx, change).await? {
                        teller.tell(&mut tx, &news).await?;
                    }
                }
                Entry::ConversationClosed(close) => {
                    job_added |= self.end_conversation(&mut tx, close, &mut teller).await?;
                }
                Entry::Decision(decision) => {
                    if decisions::insert(&mut tx, decision).await? {
                        teller.tell_refused(&mut tx, decision).await?;
                    }
                    refused_of.insert(decision.organization_id);
                }
            }
        }
        for organisation in refused_of {
            decisions::trim(&mut tx, organisation, self.0.options.decisions_kept).await?;
        }
        self.commit(tx, After { job_added, ..teller.after() }).await
    }
}
