//! Leaving nothing behind: what the capture does not end, the replay ends.

use std::io;

use super::{Dialog, Player, Row};
use crate::replay::calls::Step;
use crate::replay::rewrite;

impl Player<'_> {
    pub(super) fn end_dialog(&mut self, dialog: Option<&Dialog>) {
        let Some(dialog) = dialog else { return };
        for sent in &mut self.sent {
            sent.ended |= sent.dialog.as_ref().is_some_and(|known| known.tag == dialog.tag);
        }
    }

    /// Calls that the gateway answered though the capture's did not: hung up before the far side
    /// tries again.
    pub(super) async fn hang_up_what_was_refused(&mut self) -> io::Result<()> {
        for row in self.live_calls() {
            let captured = match self.call.steps.get(row) {
                Some(Step::Asked(exchange)) => exchange.final_answer(),
                _ => None,
            };
            if !matches!(captured, Some(200..300)) {
                self.hang_up(row, "hung up by the replay before the next attempt").await?;
            }
        }
        Ok(())
    }

    /// Rows of INVITEs that the gateway answered with 2xx and whose dialog lives.
    fn live_calls(&self) -> Vec<usize> {
        let live = self.sent.iter().filter(|sent| {
            sent.method == "INVITE" && !sent.ended && matches!(self.our_final(sent), Some(200..300))
        });
        live.map(|sent| sent.row).collect()
    }

    /// Leaves nothing behind at the gateway.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        let ringing: Vec<(usize, bool)> = self
            .sent
            .iter()
            .filter(|sent| sent.method == "INVITE" && self.our_final(sent).is_none())
            .map(|sent| (sent.row, self.rows.get(sent.row).is_some_and(|row| row.ours.is_empty())))
            .collect();
        for (row, silent) in ringing {
            let captured = self.rows.get(row).and_then(Row::captured_final);
            if captured.is_some() && !silent {
                self.wait(row, 200).await?;
            }
            let answered = self.rows.get(row).and_then(Row::our_final).is_some();
            if !answered && !silent {
                self.give_up(row).await?;
            }
        }
        let was_hung_up = self
            .call
            .steps
            .iter()
            .any(|step| matches!(step, Step::Was { method, .. } if method == "BYE"));
        let why = if was_hung_up {
            "the called side hung up in the capture; here the replay does"
        } else {
            "the capture does not hang up; the replay does"
        };
        for row in self.live_calls() {
            self.hang_up(row, why).await?;
        }
        Ok(())
    }

    /// Cancels an INVITE that still rings.
    async fn give_up(&mut self, row: usize) -> io::Result<()> {
        let Some(sent) = self.sent.iter().find(|sent| sent.row == row) else { return Ok(()) };
        let Some(Step::Asked(invite)) = self.call.steps.get(row) else { return Ok(()) };
        let (branch, uri, cseq) = (sent.branch.clone(), sent.uri.clone(), sent.cseq.clone());
        let via = self.via_with(&branch);
        let fresh = self.fresh((&uri, &via), None);
        let bytes = rewrite::compose("CANCEL", &cseq, &invite.request, &fresh);
        let own = self.own_row("CANCEL", "the capture does not cancel it; the replay does");
        self.send(own, ("CANCEL", &cseq), (branch, uri, bytes)).await?;
        self.wait(own, 200).await?;
        self.wait(row, 200).await
    }

    /// Acknowledges, if that was not done, and hangs up.
    async fn hang_up(&mut self, row: usize, why: &str) -> io::Result<()> {
        let Some(sent) = self.sent.iter().find(|sent| sent.row == row) else { return Ok(()) };
        if sent.ack.is_none() {
            self.acknowledge_success(row, None).await?;
        }
        let Some(sent) = self.sent.iter().find(|sent| sent.row == row) else { return Ok(()) };
        let Some(Step::Asked(invite)) = self.call.steps.get(row) else { return Ok(()) };
        if sent.ended {
            return Ok(());
        }
        let dialog = sent.dialog.clone().unwrap_or_default();
        self.end_dialog(Some(&dialog));
        let last = self.sent.iter().filter_map(|sent| sent.cseq.parse::<u32>().ok()).max();
        let cseq = (last.unwrap_or_default().saturating_add(1)).to_string();
        let uri = dialog.target.clone().into_bytes();
        let (via, branch) = self.via();
        let fresh = self.fresh((&uri, &via), Some(&dialog));
        let bytes = rewrite::compose("BYE", &cseq, &invite.request, &fresh);
        let own = self.own_row("BYE", why);
        self.send(own, ("BYE", &cseq), (branch, uri, bytes)).await?;
        self.wait(own, 200).await
    }

    fn own_row(&mut self, method: &str, note: &str) -> usize {
        self.rows.push(Row {
            method: method.to_owned(),
            asked: true,
            own: true,
            note: Some(note.to_owned()),
            ..Row::default()
        });
        self.rows.len() - 1
    }
}
