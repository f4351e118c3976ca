//! `trunkline verify`: whether the audit logs in the store are what was written.

use std::process::ExitCode;

use config::credential::Operator;
use config::model::{AuditChain, AuditFaultKind};
use config::settings::Settings;

use crate::run::{say, say_error};
use crate::serve::open_store;

/// Reads every audit log in the store and says whether it is whole.
pub async fn run(settings: Settings) -> ExitCode {
    let store = match open_store(&settings).await {
        Ok(store) => store,
        Err(error) => return failed(&error.to_string()),
    };
    let verified = store.verify_audit_logs(&Operator::by_process()).await;
    store.close().await;
    match verified {
        Ok(chains) => report(&chains),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> ExitCode {
    say_error(&format!("{why}\n"));
    ExitCode::FAILURE
}

fn report(chains: &[AuditChain]) -> ExitCode {
    say(&format!("{:<36} {:>9}  {:<64} VERDICT\n", "LOG", "ENTRIES", "HEAD"));
    for chain in chains {
        let log = chain.organization_id.map_or_else(|| "node".to_owned(), |id| id.to_string());
        let (entries, head, verdict) = (chain.entries, &chain.head_hash, verdict(chain));
        say(&format!("{log:<36} {entries:>9}  {head:<64} {verdict}\n"));
    }
    if chains.iter().all(|chain| chain.fault.is_none()) {
        ExitCode::SUCCESS
    } else {
        failed("the audit log is not what was written")
    }
}

fn verdict(chain: &AuditChain) -> String {
    match chain.fault {
        None => "whole".to_owned(),
        Some(fault) => {
            let what = match fault.kind {
                AuditFaultKind::Missing => "missing",
                AuditFaultKind::Changed => "changed",
            };
            format!("entry {} is {what}", fault.sequence)
        }
    }
}
