//! Making an agent from a company's website.
//!
//! ```text
//!  read the website ─► write instructions ─► agent ─► version ─► publish, SIP ─► number ─► done
//! ```
//!
//! What each step found out is written before the next begins, and each may be done twice: the agent
//! has its id before it exists, the version is made together with the progress that names it, and
//! publishing again changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing::{info, warn};

use super::instructions::{self, Written};
use super::{Desk, Job, JobError, JobStatus, NewJob, Turn, Work, Working};
use crate::credential::ScopedTo;
use crate::fetch::Fetcher;
use crate::ids::{AgentId, OrganisationId};
use crate::limits::NAME_BYTES;
use crate::llm::Model;
use crate::managed::{Managed, ManagedError};
use crate::model::{
    E164, NewAgent, NewDemo, NewVersion, NewWebsiteAgent, NumberSearch, NumberType, Publish,
    Scaffolding, ScaffoldingStatus, ScaffoldingStep as Step, VersionRef,
};
use crate::store::{Store, StoreError};
use crate::texts::{self, Site};

/// Jobs that make agents from websites.
pub const SCAFFOLD_AGENT: &str = "scaffold_agent";

/// Attempts that ask the model; the last ones write without it.
const ATTEMPTS_WITH_MODEL: u32 = 3;

/// What is wanted, however it was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Payload {
    agent_id: AgentId,
    is_new: bool,
    name: Option<String>,
    website: String,
    overview: Option<String>,
    wishes: Option<String>,
    is_demo: bool,
    deploys: bool,
    wants_number: bool,
    voice_id: Option<String>,
    avatar_url: Option<String>,
    collection_id: Option<String>,
    demo_type: Option<String>,
}

/// What was done so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    step: Step,
    site: Option<Site>,
    inputs: Value,
    written: Option<Written>,
    has_agent: bool,
    version: Option<u32>,
    account: Option<String>,
    number: Option<E164>,
    has_number: bool,
    notes: Vec<String>,
}

/// The job for an agent of a website.
pub(crate) fn for_website(new: NewWebsiteAgent, website: String) -> NewJob {
    enqueued(Payload {
        agent_id: new.existing_agent_id.unwrap_or_else(AgentId::random),
        is_new: new.existing_agent_id.is_none(),
        name: Some(new.company_name),
        website,
        overview: new.company_overview,
        wishes: None,
        is_demo: new.is_demo,
        deploys: !new.skip_deployment,
        wants_number: false,
        voice_id: new.voice_id,
        avatar_url: new.avatar_url,
        collection_id: new.existing_collection_id,
        demo_type: new.demo_type,
    })
}

/// The job for a demonstration.
pub(crate) fn for_demo(new: NewDemo, website: String) -> NewJob {
    enqueued(Payload {
        agent_id: AgentId::random(),
        is_new: true,
        name: None,
        website,
        overview: None,
        wishes: new.instructions,
        is_demo: true,
        deploys: true,
        wants_number: new.include_phone_number,
        voice_id: None,
        avatar_url: None,
        collection_id: None,
        demo_type: None,
    })
}

fn enqueued(payload: Payload) -> NewJob {
    let rests = Duration::ZERO;
    NewJob { kind: SCAFFOLD_AGENT, subject: None, payload: json!(payload), rests }
}

/// What the API tells of a job.
pub(crate) fn describe(job: Job) -> Scaffolding {
    let progress: Progress = super::progress(&job);
    let agent = Payload::deserialize(&job.payload).ok();
    let agent = agent.filter(|payload| progress.has_agent || !payload.is_new);
    Scaffolding {
        workflow_id: job.id,
        status: match job.status {
            JobStatus::Waiting => ScaffoldingStatus::Queued,
            JobStatus::Running => ScaffoldingStatus::Running,
            JobStatus::Done => ScaffoldingStatus::Completed,
            JobStatus::Failed => ScaffoldingStatus::Failed,
        },
        step: progress.step,
        agent_id: agent.map(|payload| payload.agent_id),
        version: progress.version,
        phone_number: progress.number.filter(|_| progress.has_number),
        notes: progress.notes,
        error: job.error,
        created_at: job.created_at,
        updated_at: job.updated_at,
    }
}

/// The work of [`SCAFFOLD_AGENT`].
pub struct ScaffoldAgent {
    store: Store,
    fetcher: Fetcher,
    model: Option<Model>,
    managed: Managed,
}

impl ScaffoldAgent {
    /// Reads websites with `fetcher`, writes with this model or without, and buys numbers at the
    /// `managed` accounts.
    #[must_use]
    pub fn new(store: Store, fetcher: Fetcher, model: Option<Model>, managed: Managed) -> Self {
        Self { store, fetcher, model, managed }
    }

    async fn scaffold(&self, job: &Job, desk: &Desk) -> Result<Turn, JobError> {
        let unreadable = |_| JobError::Final("the job cannot be read".to_owned());
        let wanted = Payload::deserialize(&job.payload).map_err(unreadable)?;
        let mut at: Progress = super::progress(job);
        let scope = ScopedTo::by_gateway(job.organisation);
        let turn = Making { work: self, scope, wanted: &wanted, attempt: job.attempts };
        while at.step != Step::Done {
            info!(step = ?at.step, "scaffolding");
            match at.step {
                Step::ReadingWebsite => turn.read(&mut at).await?,
                Step::WritingInstructions => turn.write(&mut at).await?,
                Step::CreatingAgent => turn.create_agent(&mut at).await?,
                Step::CreatingVersion => {
                    turn.create_version(&mut at, desk).await?;
                    continue; // written together with the version
                }
                Step::Deploying => turn.deploy(&mut at).await?,
                Step::ChoosingNumber => turn.choose_number(&mut at).await,
                Step::AssigningNumber => turn.assign_number(&mut at).await?,
                Step::Done => {}
            }
            desk.save(&json!(at)).await?;
        }
        Ok(Turn::Done(json!({ "agent_id": wanted.agent_id, "version": at.version })))
    }
}

impl Work for ScaffoldAgent {
    fn run<'a>(&'a self, job: &'a Job, desk: &'a Desk) -> Working<'a, Result<Turn, JobError>> {
        Box::pin(self.scaffold(job, desk))
    }

    fn give_up<'a>(&'a self, _job: &'a Job) -> Working<'a, Result<(), StoreError>> {
        Box::pin(async { Ok(()) }) // what is there stays: an agent without a version harms nobody
    }
}

/// What a demonstration takes: any local number that carries calls.
fn any_number() -> NumberSearch {
    NumberSearch {
        country: "US".to_owned(),
        kind: NumberType::Local,
        voice_enabled: true,
        area_code: None,
        limit: 1,
    }
}

/// One turn at a job.
struct Making<'a> {
    work: &'a ScaffoldAgent,
    scope: ScopedTo<OrganisationId>,
    wanted: &'a Payload,
    attempt: u32,
}

impl Making<'_> {
    async fn read(&self, at: &mut Progress) -> Result<(), JobError> {
        let site = texts::read_site(&self.work.fetcher, &self.wanted.website).await;
        let site = site.map_err(|error| match error.is_passing() {
            true => JobError::Passing(error.to_string()),
            false => JobError::Final(error.to_string()),
        })?;
        at.inputs = texts::demo_inputs(&site, self.given());
        at.site = Some(site);
        at.step = Step::WritingInstructions;
        Ok(())
    }

    /// What the customer said, under the names it has as builder inputs.
    fn given(&self) -> Map<String, Value> {
        let said = [
            ("company_name", &self.wanted.name),
            ("company_overview", &self.wanted.overview),
            ("task", &self.wanted.wishes),
        ];
        let present = said.into_iter().filter_map(|(name, text)| {
            text.as_ref().map(|text| (name.to_owned(), Value::from(text.as_str())))
        });
        present.collect()
    }

    async fn write(&self, at: &mut Progress) -> Result<(), JobError> {
        let written = match instructions::write(self.work.model.as_ref(), &at.inputs).await {
            Ok(written) => written,
            Err(error) if error.is_passing() && self.attempt < ATTEMPTS_WITH_MODEL => {
                return Err(instructions::of_model(error));
            }
            Err(error) => {
                warn!(%error, "instructions are assembled instead");
                at.notes.push(format!("Instructions were assembled: {error}."));
                instructions::assembled(&at.inputs)
            }
        };
        at.written = Some(written);
        at.step = Step::CreatingAgent;
        Ok(())
    }

    async fn create_agent(&self, at: &mut Progress) -> Result<(), JobError> {
        if self.wanted.is_new {
            let new = self.new_agent(at);
            self.work.store.ensure_agent(&self.scope, self.wanted.agent_id, new).await?;
        }
        at.has_agent = true;
        at.step = Step::CreatingVersion;
        Ok(())
    }

    fn new_agent(&self, at: &Progress) -> NewAgent {
        let title = at.site.as_ref().map(|site| site.title.clone());
        let name = self.wanted.name.clone().or(title.filter(|title| !title.is_empty()));
        let mut name = name.unwrap_or_else(|| self.wanted.website.clone());
        name.truncate(name.floor_char_boundary(NAME_BYTES.value_usize()));
        let mut metadata = Map::new();
        metadata.insert("company_website".to_owned(), self.wanted.website.as_str().into());
        for (key, value) in
            [("avatar_url", &self.wanted.avatar_url), ("demo_type", &self.wanted.demo_type)]
        {
            metadata.extend(value.as_ref().map(|text| (key.to_owned(), text.as_str().into())));
        }
        NewAgent {
            name,
            description: at.site.as_ref().map(|site| site.description.clone()),
            active: true,
            is_demo: self.wanted.is_demo,
            metadata: Some(Value::Object(metadata)),
        }
    }

    async fn create_version(&self, at: &mut Progress, desk: &Desk) -> Result<(), JobError> {
        let store = &self.work.store;
        let Some(written) = at.written.clone() else {
            return Err(JobError::Final("the job has lost its instructions".to_owned()));
        };
        let config = match self.wanted.is_new {
            true => None,
            false => store.newest_config(&self.scope, self.wanted.agent_id).await?,
        };
        let config = self.config(config.unwrap_or_else(|| json!({})), at);
        let inputs = Some(at.inputs.clone());
        let new = NewVersion {
            config: Some(config),
            instruction_builder_inputs: inputs,
            base_version: None,
        };
        let next = match (self.wanted.deploys, self.wanted.wants_number) {
            (true, _) => Step::Deploying,
            (false, true) => Step::ChoosingNumber,
            (false, false) => Step::Done,
        };
        at.step = next;
        let progress = |version: u32| {
            at.version = Some(version);
            json!(at)
        };
        let made = store
            .create_written_version(
                &self.scope,
                self.wanted.agent_id,
                (new, written),
                (desk.lease(), progress),
            )
            .await?;
        if made { Ok(()) } else { Err(JobError::LeaseLost) }
    }

    /// The version's config, on the ground of what the agent had.
    fn config(&self, mut config: Value, at: &Progress) -> Value {
        let Some(entries) = config.as_object_mut() else { return config };
        if let Some(voice) = &self.wanted.voice_id {
            let speech = entries.entry("stt_llm_tts").or_insert_with(|| json!({}));
            if let Some(speech) = speech.as_object_mut() {
                speech.insert("tts".to_owned(), json!({ "voice_id": voice }));
            }
        }
        if let Some(collection) = &self.wanted.collection_id {
            let knowledge = json!([{ "dataset_id": collection }]);
            entries.insert("knowledge_bases".to_owned(), knowledge);
        }
        if self.wanted.is_new {
            let company = at.inputs.get("company_name").and_then(Value::as_str).unwrap_or_default();
            let greeting = format!("Hello, this is {company}. How can I help you?");
            let message = json!({ "type": "bot_initiates_static", "text": greeting });
            entries.insert("starting_message".to_owned(), message);
        }
        config
    }

    async fn deploy(&self, at: &mut Progress) -> Result<(), JobError> {
        let (store, agent) = (&self.work.store, self.wanted.agent_id);
        if let Some(version) = at.version {
            let which = VersionRef::Number(version);
            store.publish(&self.scope, agent, which, Publish::default()).await?;
            store.deploy_as_sip(&self.scope, agent).await?;
        }
        at.step = if self.wanted.wants_number { Step::ChoosingNumber } else { Step::Done };
        Ok(())
    }

    /// Chooses a number that is to be had, which is then bought whatever happens in between.
    async fn choose_number(&self, at: &mut Progress) {
        let managed = &self.work.managed;
        for account in managed.accounts() {
            let found = managed.available(&account.id, &any_number()).await.unwrap_or_default();
            if let Some(number) = found.into_iter().next() {
                at.account = Some(account.id);
                at.number = Some(number.phone_number);
                at.step = Step::AssigningNumber;
                return;
            }
        }
        self.without_number(at, "no managed account has one");
    }

    /// Buys the number, unless it is there since an earlier attempt, and points it at the version.
    async fn assign_number(&self, at: &mut Progress) -> Result<(), JobError> {
        let (Some(account), Some(number), Some(version)) = (&at.account, &at.number, at.version)
        else {
            at.step = Step::Done;
            return Ok(());
        };
        let (store, managed) = (&self.work.store, &self.work.managed);
        let bought = match store.number(&self.scope, number).await {
            Err(StoreError::NotFound(_)) => {
                managed.purchase(&self.scope, account, number).await.map(drop)
            }
            found => found.map(drop).map_err(ManagedError::from),
        };
        match bought {
            Ok(()) => {}
            Err(
                error @ (ManagedError::UnderWay | ManagedError::Store(StoreError::Unavailable(_))),
            ) => {
                return Err(JobError::Passing(error.to_string()));
            }
            Err(error) => {
                self.without_number(at, &error.to_string());
                return Ok(());
            }
        }
        let numbers = Some(vec![number.clone()]);
        let publish = Publish { phone_numbers: numbers, ..Publish::default() };
        let which = VersionRef::Number(version);
        store.publish(&self.scope, self.wanted.agent_id, which, publish).await?;
        at.has_number = true;
        at.step = Step::Done;
        Ok(())
    }

    fn without_number(&self, at: &mut Progress, why: &str) {
        at.notes.push(format!("No phone number: {why}."));
        at.step = Step::Done;
    }
}
