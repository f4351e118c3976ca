//! What this program does in the background, and what with.

use std::io;
use std::sync::Arc;

use config::fetch::Fetcher;
use config::jobs::{
    GENERATE_INSTRUCTIONS, GenerateInstructions, Runner, SCAFFOLD_AGENT, ScaffoldAgent,
};
use config::llm::{Endpoint, Model};
use config::managed::Managed;
use config::settings::Settings;
use config::store::Store;

/// What the settings give to work with.
#[derive(Clone)]
pub struct Means {
    /// Fetches what customers name.
    pub fetcher: Fetcher,
    /// Writes texts, if the settings name a language model.
    pub model: Option<Model>,
}

impl Means {
    /// Reads the settings.
    ///
    /// # Errors
    /// When a file that they name cannot be used.
    pub fn open(settings: &Settings) -> io::Result<Self> {
        let model = Endpoint::new(&settings.llm)?.map(|endpoint| Arc::new(endpoint) as Model);
        Ok(Self { fetcher: Fetcher::new(&settings.fetch)?, model })
    }

    /// Does every kind of job that this program knows.
    #[must_use]
    pub fn runner(self, store: &Store, managed: Managed) -> Runner {
        let generate = GenerateInstructions::new(store.clone(), self.model.clone());
        let scaffold = ScaffoldAgent::new(store.clone(), self.fetcher, self.model, managed);
        Runner::new(store.clone())
            .with(GENERATE_INSTRUCTIONS, Arc::new(generate))
            .with(SCAFFOLD_AGENT, Arc::new(scaffold))
    }
}
