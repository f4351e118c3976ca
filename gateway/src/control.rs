//! The control plane as this program runs it: the REST API, what it stands on, and the work that goes on in
//! the background.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use config::api::{self, Api, Waiting};
use config::calls::LiveCalls;
use config::events::{Attempts, Courier};
use config::fetch::Fetcher;
use config::jobs::{
    GENERATE_INSTRUCTIONS, GenerateInstructions, Runner, SCAFFOLD_AGENT, ScaffoldAgent,
};
use config::limits::{JOBS_RUNNING_WORKFLOWS, RUNS_OF_ORGANIZATION};
use config::llm::{Endpoint, Model};
use config::managed::Managed;
use config::settings::Settings;
use config::store::Store;
use config::workflows::Workflows;
use config::workflows::background::{RUN_AFTER_CONVERSATION, RUN_WORKFLOW, RunWorkflow};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::workflow::{Engine, EngineOptions, World};

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

    /// What runs workflows; its processes are started when they are first needed.
    #[must_use]
    pub fn engine(&self, settings: &Settings) -> Engine {
        let world = World::new(self.fetcher.clone(), self.model.clone());
        Engine::new(EngineOptions::from(&settings.workflows), Arc::new(world))
    }

    /// Does every kind of job that this program knows.
    fn runner(self, store: &Store, (managed, engine): (Managed, Arc<dyn Workflows>)) -> Runner {
        let generate = GenerateInstructions::new(store.clone(), self.model.clone());
        let scaffold = ScaffoldAgent::new(store.clone(), self.fetcher, self.model, managed);
        let run = Arc::new(RunWorkflow::new(store.clone(), engine));
        let places = (JOBS_RUNNING_WORKFLOWS, RUNS_OF_ORGANIZATION);
        Runner::new(store.clone())
            .with(GENERATE_INSTRUCTIONS, Arc::new(generate))
            .with(SCAFFOLD_AGENT, Arc::new(scaffold))
            .with_places(RUN_WORKFLOW, Arc::clone(&run) as _, places)
            .with_places(RUN_AFTER_CONVERSATION, run, places)
    }
}

/// What the gateway keeps of the control plane once it has started.
#[derive(Debug)]
pub struct Started {
    /// The API.
    pub api: Router,
    /// The count of what webhooks were sent.
    pub attempts: Arc<Attempts>,
    /// The runs of workflows that requests wait for.
    pub waiting: Waiting,
    /// Does jobs until the program stops; then it gives back those that it had.
    pub jobs: JoinHandle<()>,
}

/// Begins what goes on in the background: purchases of numbers, webhooks, jobs.
///
/// # Errors
/// When a managed account cannot be used as the settings have it.
pub fn start(
    (settings, store): (&Settings, &Store),
    (live, engine): (Arc<dyn LiveCalls>, Arc<dyn Workflows>),
    means: Means,
    (stopping, tasks): (&watch::Receiver<bool>, &mut Vec<JoinHandle<()>>),
) -> io::Result<Started> {
    let managed = Managed::of_settings(store.clone(), &settings.managed);
    let managed = managed.map_err(io::Error::other)?;
    let patience = Duration::from_secs(settings.webhooks.timeout_seconds.into());
    let courier = Courier::new(store.clone(), means.fetcher.clone(), patience);
    let (attempts, waiting) = (courier.attempts(), Waiting::default());
    let api = Api {
        store: store.clone(),
        options: api::ApiOptions::from(settings),
        calls: live,
        workflows: Arc::clone(&engine),
        waiting: waiting.clone(),
        managed: managed.clone(),
        fetcher: means.fetcher.clone(),
        model: means.model.clone(),
    };
    tasks.push(tokio::spawn(managed.clone().run()));
    let jobs = tokio::spawn(means.runner(store, (managed, engine)).run(stopping.clone()));
    tasks.push(tokio::spawn(courier.run()));
    Ok(Started { api: api::router(api), attempts, waiting, jobs })
}
