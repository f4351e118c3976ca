//! What an agent's own workflows do around its conversations: `pre_conversation_workflow` and
//! `post_conversation_workflow` of its config.
//!
//! The first runs before anybody is answered or dialled and may add to the conversation or call it
//! off; the second runs after the end and changes nothing about it. A workflow is named by id and
//! version, or stands in the config itself.
//!
//! No call waits for a database, so what runs before lies in the snapshot, ready to run. What runs after
//! is a run in the background, made in the write that ends the conversation: until then it is only kept.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::ids::{AgentId, AgentVersionId, ConversationId, OrganisationId, WorkflowId};
use crate::model::{Conversation, Direction, VersionRef};
use crate::routing::{Output, Told, Why};
use crate::workflows::{Definition, Failure, Fault, Outcome};

/// The fields of an agent config that hold workflows.
pub const FIELDS: [&str; 2] = ["pre_conversation_workflow", "post_conversation_workflow"];

/// The workflows of one version of an agent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AgentWorkflows {
    /// Runs before the agent is reached.
    pub pre: Option<WorkflowAction>,
    /// Runs after the conversation.
    pub post: Option<PostAction>,
}

impl AgentWorkflows {
    /// Reads a stored config. What does not read is there all the same, and fails when it is to run:
    /// a check that a call has to pass must not vanish.
    #[must_use]
    pub fn read(config: &Value) -> Self {
        let [pre, post] = FIELDS.map(|field| config.get(field).filter(|field| !field.is_null()));
        let pre = match WorkflowAction::parse(pre) {
            Ok(action) => action,
            Err(faults) => pre.map(|field| WorkflowAction::unreadable(field, &faults)),
        };
        Self { pre, post: post.map(PostAction::of) }
    }

    /// The one that calls need, if it is named by id.
    pub(crate) fn stored(&self) -> Option<&StoredWorkflow> {
        match &self.pre.as_ref()?.workflow {
            ActionWorkflow::Stored(stored) => Some(stored),
            _ => None,
        }
    }

    /// The one that calls need, if it is named by id, to be found.
    pub(crate) fn stored_mut(&mut self) -> Option<&mut StoredWorkflow> {
        match &mut self.pre.as_mut()?.workflow {
            ActionWorkflow::Stored(stored) => Some(stored),
            _ => None,
        }
    }
}

/// The workflow that runs after a conversation: the field of the config as it stands there, JSON. What
/// does not read fails when it is to run.
#[derive(Clone, PartialEq, Eq)]
pub struct PostAction(Arc<str>);

/// It may hold credentials of the customer's, and stays out of logs.
impl fmt::Debug for PostAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostAction")
    }
}

impl PostAction {
    fn of(field: &Value) -> Self {
        Self(field.to_string().into())
    }

    /// As it is kept with its run.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The stored workflow that it names, if it does, and which version; nothing else of it is read.
    pub(crate) fn named(&self) -> Option<(WorkflowId, VersionRef)> {
        #[derive(Deserialize)]
        struct Named {
            workflow_id: WorkflowId,
            workflow_version: VersionRef,
        }
        let Named { workflow_id, workflow_version } = serde_json::from_str(&self.0).ok()?;
        Some((workflow_id, workflow_version))
    }
}

/// One workflow of an agent, and when it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowAction {
    /// What is run.
    pub workflow: ActionWorkflow,
    /// The step it begins with; `None` for the workflow's own first step.
    pub initial_step: Option<String>,
    /// It runs only if this expression is true of its input; `None` is always.
    pub condition: Option<Arc<Definition>>,
    /// Whether a call ends when this workflow fails, is late, or finds no room to run.
    pub reject_on_error: bool,
}

/// The workflow of an action.
#[derive(Debug, Clone, PartialEq)]
pub enum ActionWorkflow {
    /// A stored one.
    Stored(StoredWorkflow),
    /// One that stands in the config.
    Inline(Arc<Definition>),
    /// One that does not read, and why.
    Unreadable(String),
}

/// A workflow that is named by its id.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredWorkflow {
    /// Its id.
    pub id: String,
    /// Which published version; `None` is the latest.
    pub version: Option<u32>,
    /// What it is at present, or why it cannot be run: a config that was just read names it only.
    pub definition: Result<Arc<Definition>, String>,
}

impl StoredWorkflow {
    fn named(id: String, version: Option<u32>) -> Self {
        let definition = Err(String::new());
        let mut named = Self { id, version, definition };
        named.definition = Err(named.missing());
        named
    }

    /// Why it cannot be run when the organisation has no such version.
    pub(crate) fn missing(&self) -> String {
        match self.version {
            Some(version) => format!("There is no version {version} of workflow {}.", self.id),
            None => format!("There is no workflow {}.", self.id),
        }
    }
}

impl WorkflowAction {
    /// Reads one of the [`FIELDS`]; `None` when there is nothing in it.
    ///
    /// # Errors
    /// Every fault that was found, each with its place from the root of the field.
    pub fn parse(field: Option<&Value>) -> Result<Option<Self>, Vec<Fault>> {
        let action = match field {
            None | Some(Value::Null) => return Ok(None),
            Some(action) => action,
        };
        let fault = |place: &str, message: &str| Err(vec![Fault::new(place, message)]);
        match action.get("type").and_then(Value::as_str) {
            Some("workflow") => {}
            _ => return fault("type", "must be \"workflow\""),
        }
        let present = |key: &str| action.get(key).filter(|value| !value.is_null());
        let initial_step = match present("initial_step").map(Value::as_str) {
            None => None,
            Some(Some(step)) if !step.is_empty() => Some(step.to_owned()),
            Some(_) => return fault("initial_step", "must be a step's id"),
        };
        let reject_on_error = match present("reject_on_error").map(Value::as_bool) {
            None => false,
            Some(Some(rejects)) => rejects,
            Some(None) => return fault("reject_on_error", "must be true or false"),
        };
        let condition = match present("condition").map(Value::as_str) {
            None => None,
            Some(Some(text)) => condition(text)?,
            Some(None) => return fault("condition", "must be an expression"),
        };
        let workflow = match (present("workflow_id"), present("definition")) {
            (Some(id), None) => {
                if initial_step.is_none() {
                    return fault("initial_step", "is needed with workflow_id");
                }
                stored(id, present("workflow_version"))?
            }
            (None, Some(definition)) => ActionWorkflow::Inline(inline(definition)?),
            _ => return fault("definition", "give exactly one of workflow_id and definition"),
        };
        Ok(Some(Self { workflow, initial_step, condition, reject_on_error }))
    }

    fn unreadable(action: &Value, faults: &[Fault]) -> Self {
        let why: Vec<String> = faults.iter().map(Fault::to_string).collect();
        Self {
            workflow: ActionWorkflow::Unreadable(why.join("; ")),
            initial_step: None,
            condition: None,
            reject_on_error: action.get("reject_on_error") == Some(&Value::Bool(true)),
        }
    }
}

fn stored(id: &Value, version: Option<&Value>) -> Result<ActionWorkflow, Vec<Fault>> {
    let fault = |place: &str, message: &str| vec![Fault::new(place, message)];
    let id = id.as_str().filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| fault("workflow_id", "must be a workflow's id"))?.to_owned();
    const WRONG: &str = "must be a version's number, or \"latest\"";
    let version = match version {
        Some(Value::String(text)) if text == "latest" => None,
        Some(Value::Number(number)) => {
            let number = number.as_u64().and_then(|number| u32::try_from(number).ok());
            let number = number.filter(|number| *number > 0);
            Some(number.ok_or_else(|| fault("workflow_version", WRONG))?)
        }
        _ => return Err(fault("workflow_version", WRONG)),
    };
    Ok(ActionWorkflow::Stored(StoredWorkflow::named(id, version)))
}

fn inline(definition: &Value) -> Result<Arc<Definition>, Vec<Fault>> {
    let below = |fault: Fault| Fault::new(format!("definition.{}", fault.place), fault.message);
    let parsed = Definition::parse(definition);
    parsed.map(|parsed| parsed.definition).map_err(|faults| faults.into_iter().map(below).collect())
}

/// The id of the one field that a condition's workflow puts out.
const HOLDS: &str = "holds";

/// A condition is evaluated as everything else that customers write is: as a workflow, of one step.
fn condition(text: &str) -> Result<Option<Arc<Definition>>, Vec<Fault>> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = Definition::parse(&condition_definition(text));
    let here = |faults: Vec<Fault>| {
        faults.into_iter().map(|fault| Fault::new("condition", fault.message)).collect()
    };
    parsed.map(|parsed| Some(parsed.definition)).map_err(here)
}

/// The workflow that says whether a condition is true, for its check when it is written.
#[must_use]
pub fn condition_definition(text: &str) -> Value {
    let bare = text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    let expression = format!("{{{{ $boolean({}) }}}}", bare.unwrap_or(text).trim());
    json!({
        "steps": [
            { "id": "trigger", "type": "input", "next": "condition" },
            { "id": "condition", "type": "output", "fields": { HOLDS: expression } },
        ],
    })
}

/// What the workflow of a condition said: an expression without a value is not true.
///
/// # Errors
/// Why it said nothing.
pub fn holds(outcome: &Outcome) -> Result<bool, &Failure> {
    outcome.result.as_ref().map(|output| output.get(HOLDS) == Some(&Value::Bool(true)))
}

/// A conversation, as an agent's workflows are told of it before it begins.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// Whose it is.
    pub organisation: OrganisationId,
    /// Its record so far.
    pub conversation: ConversationId,
    /// The agent; `None` for one that exists for this call only.
    pub agent: Option<AgentId>,
    /// Its version.
    pub version: Option<AgentVersionId>,
    /// The other party's number.
    pub phone_number: &'a str,
    /// The agent side's number.
    pub agent_number: Option<&'a str>,
    /// Who called.
    pub direction: Direction,
    /// What the agent will be told as it stands.
    pub told: &'a Told,
    /// When the call came or was placed.
    pub at: Timestamp,
}

impl Before<'_> {
    /// The workflow's input.
    #[must_use]
    pub fn input(&self) -> Value {
        json!({ "trigger": {
            "type": "pre_call",
            "conversation_id": self.conversation,
            "agent_id": self.agent,
            "agent_version_id": self.version,
            "phone_number": self.phone_number,
            "agent_number": self.agent_number,
            "direction": self.direction,
            "organization_id": self.organisation,
            "initial_context": self.told.initial_context,
            "custom_metadata": self.told.custom_metadata,
            "timestamp": self.at,
        } })
    }
}

/// What a post-conversation workflow is told: the record, as it stands at the end.
#[must_use]
pub fn after(conversation: &Conversation) -> Value {
    json!({ "trigger": {
        "type": "post_call",
        "conversation_id": conversation.id,
        "agent_id": conversation.agent_id,
        "agent_version_id": conversation.agent_version_id,
        "phone_number": conversation.user_id,
        "agent_number": conversation.agent_number,
        "direction": conversation.direction,
        "organization_id": conversation.organization_id,
        "status": conversation.status,
        "end_reason": conversation.end_reason,
        "duration": conversation.duration,
        "initial_context": conversation.initial_context,
        "custom_metadata": conversation.custom_metadata,
        "conversation": conversation.conversation,
        "summary": conversation.summary,
        "user_turn_count": conversation.user_turn_count,
        "transfer": conversation.transfer,
        "started_at": conversation.created_at,
        "answered_at": conversation.answered_at,
        "ended_at": conversation.ended_at,
    } })
}

/// What a pre-conversation workflow came to.
///
/// # Errors
/// [`Why::Rejected`] when it calls the conversation off; otherwise why it came to nothing, and a
/// sentence about it that quotes nothing of the conversation.
pub fn settle(outcome: &Outcome) -> Result<Told, (Why, String)> {
    let output = match &outcome.result {
        Ok(output) => Output::read(output),
        Err(failure) => {
            let (step, why) = (&failure.step_name, failure.discreet());
            let at = if step.is_empty() { String::new() } else { format!("step \"{step}\": ") };
            return Err((failure.kind.into(), format!("{at}{why}")));
        }
    };
    match output {
        Err(fault) => Err((Why::Failed, format!("output: {fault}"))),
        Ok(output) if output.reject => Err((Why::Rejected, String::new())),
        Ok(output) => Ok(output.told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflows::FailureKind;

    fn definition() -> Value {
        json!({ "steps": [
            { "id": "trigger", "type": "input", "next": "n1" },
            { "id": "n1", "type": "output", "fields": {} },
        ] })
    }

    fn place(action: &Value) -> String {
        WorkflowAction::parse(Some(action)).unwrap_err().remove(0).place
    }

    #[test]
    fn an_action_names_a_workflow_or_holds_one() {
        assert_eq!(WorkflowAction::parse(None), Ok(None));
        assert_eq!(WorkflowAction::parse(Some(&Value::Null)), Ok(None));
        let stored = json!({ "type": "workflow", "workflow_id": "wf_1", "workflow_version": 3,
            "initial_step": "n1", "reject_on_error": true });
        let stored = WorkflowAction::parse(Some(&stored)).unwrap().unwrap();
        let ActionWorkflow::Stored(workflow) = stored.workflow else { panic!("not by id") };
        assert_eq!((workflow.id.as_str(), workflow.version), ("wf_1", Some(3)));
        assert!(workflow.definition.is_err(), "nobody has looked for it");
        assert_eq!(stored.initial_step.as_deref(), Some("n1"));
        assert!(stored.reject_on_error);
        let inline = json!({ "type": "workflow", "definition": definition() });
        let inline = WorkflowAction::parse(Some(&inline)).unwrap().unwrap();
        assert!(matches!(inline.workflow, ActionWorkflow::Inline(_)));
        assert_eq!((inline.initial_step, inline.reject_on_error), (None, false));
    }

    #[test]
    fn every_part_of_an_action_that_does_not_fit_is_named() {
        let with = |field: &str, value: Value| {
            let mut action = json!({ "type": "workflow", "definition": definition() });
            action[field] = value;
            place(&action)
        };
        assert_eq!(place(&json!({ "definition": definition() })), "type");
        assert_eq!(place(&json!({ "type": "workflow" })), "definition");
        assert_eq!(with("type", json!("hangup")), "type");
        assert_eq!(with("workflow_id", json!("wf_1")), "definition", "one of the two, not both");
        assert_eq!(with("initial_step", json!(1)), "initial_step");
        assert_eq!(with("reject_on_error", json!("yes")), "reject_on_error");
        assert_eq!(with("condition", json!(true)), "condition");
        assert!(with("definition", json!({ "steps": [] })).starts_with("definition.steps"));
        let stored = |version: Value| {
            place(&json!({ "type": "workflow", "workflow_id": "wf_1", "initial_step": "n1",
                "workflow_version": version }))
        };
        for bad in [json!(0), json!("3"), json!(1.5), Value::Null] {
            assert_eq!(stored(bad.clone()), "workflow_version", "{bad}");
        }
    }

    #[test]
    fn a_stored_action_that_does_not_read_stays_and_fails() {
        let config = json!({ "pre_conversation_workflow": { "type": "workflow" } });
        let read = AgentWorkflows::read(&config);
        assert!(matches!(read.pre.unwrap().workflow, ActionWorkflow::Unreadable(_)));
        assert_eq!(read.post, None);
        for empty in [json!({}), json!({ "post_conversation_workflow": null })] {
            assert_eq!(AgentWorkflows::read(&empty), AgentWorkflows::default());
        }
    }

    #[test]
    fn what_runs_after_a_conversation_is_kept_as_it_was_written() {
        let kept = |action: &Value| {
            AgentWorkflows::read(&json!({ "post_conversation_workflow": action })).post.unwrap()
        };
        let id = WorkflowId::random();
        for (version, number) in
            [(json!("latest"), VersionRef::Latest), (json!(3), VersionRef::Number(3))]
        {
            let action = json!({ "type": "workflow", "workflow_id": id, "initial_step": "n1",
                "workflow_version": version });
            assert_eq!(kept(&action).named(), Some((id, number)));
            assert_eq!(serde_json::from_str::<Value>(kept(&action).text()).unwrap(), action);
        }
        let inline = kept(&json!({ "type": "workflow", "definition": { "steps": "secret" } }));
        assert_eq!(inline.named(), None);
        assert_eq!(format!("{inline:?}"), "PostAction");
    }

    #[test]
    fn a_condition_may_stand_in_braces_or_not() {
        let field = |text: &str| condition_definition(text)["steps"][1]["fields"][HOLDS].clone();
        assert_eq!(
            field("input.trigger.direction = 'inbound'"),
            field("{{ input.trigger.direction = 'inbound' }}")
        );
        assert_eq!(condition(" ").unwrap(), None);
    }

    #[test]
    fn a_pre_conversation_workflow_adds_rejects_or_fails() {
        let outcome = |result| Outcome { result, trace: Vec::new() };
        let told =
            settle(&outcome(Ok(json!({ "initial_context": "x", "custom_metadata": { "a": 1 } }))));
        let told = told.unwrap();
        assert_eq!(told.initial_context.as_deref(), Some("x"));
        assert_eq!(told.metadata(), Some(json!({ "a": 1 })));
        let rejected = settle(&outcome(Ok(json!({ "reject": true }))));
        assert_eq!(rejected.unwrap_err().0, Why::Rejected);
        let wrong = settle(&outcome(Ok(json!({ "custom_metadata": [] }))));
        assert_eq!(wrong.unwrap_err().0, Why::Failed);
        let failed = |step_name: &str, kind| {
            let (step_name, message) = (step_name.to_owned(), "Cannot convert 'canary'".to_owned());
            settle(&outcome(Err(Failure { step_name, message, kind }))).unwrap_err()
        };
        let late = failed("n1", FailureKind::TimedOut);
        assert_eq!(late, (Why::TimedOut, "step \"n1\": the run was not done in time".to_owned()));
        let threw = failed("n1", FailureKind::Threw);
        assert_eq!(threw, (Why::Failed, "step \"n1\": the step failed".to_owned()));
        let never_ran =
            settle(&crate::routing::not_run(FailureKind::Threw, "There is no workflow 7."));
        assert_eq!(never_ran.unwrap_err().1, "There is no workflow 7.");
    }
}
