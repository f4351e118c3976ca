//! The verb behind the journal: what calls write, many at a time.

use std::collections::HashSet;

use super::{After, Store, StoreError, conversations, decisions};
use crate::journal::Entry;

impl Store {
    /// Writes entries of the journal in order, all or none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when they should be tried again; anything else means that one of
    /// them cannot be written at all.
    pub(crate) async fn write_entries(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let mut refused_of = HashSet::new();
        for entry in entries {
            match entry {
                Entry::ConversationOpened(row) => {
                    self.insert_conversation(&mut tx, row).await?;
                }
                Entry::ConversationChanged(change) => {
                    conversations::apply_change(&mut tx, change).await?;
                }
                Entry::ConversationClosed(close) => {
                    conversations::apply_close(&mut tx, close).await?;
                }
                Entry::Decision(decision) => {
                    decisions::insert(&mut tx, decision).await?;
                    refused_of.insert(decision.organization_id);
                }
            }
        }
        for organisation in refused_of {
            decisions::trim(&mut tx, organisation, self.0.options.decisions_kept).await?;
        }
        self.commit(tx, After::default()).await
    }
}
