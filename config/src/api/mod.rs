//! The REST API: what customers and their programs configure and read.
//!
//! ```text
//!  request ─► envelope ─► guard of the route ─► extractors ─► handler ─► store
//!             request id  key, scopes,          404, 413,
//!             one at a    organisation          422 with
//!             time limit  401, 403              every place
//! ```
//!
//! Routes, scopes and the OpenAPI document come from one table ([`routes()`]). Handlers are thin: they name the
//! verb of the store and the words of its errors. Every error is `{"detail": …}` (`error.rs`).
//!
//! What the contract leaves open and this API decides: an id that is no UUID is an unknown id (404);
//! unknown fields and query parameters are refused, and so is a query that is not UTF-8 (422); a body beyond the limit is 413; a created
//! object comes back with 200, and a call out, which takes its time, with 202; the filter
//! `custom_metadata` needs the scope that shows it; a request that is repeated with its `id` gets what
//! the first one left, and one that was refused, with 503 for want of a place in the queue too, has left
//! nothing.

mod agent_config;
mod agents;
mod assist;
mod audit;
mod calls;
mod concurrency;
mod conversations;
mod decisions;
mod default_runtime;
mod document;
mod envelope;
mod error;
mod events;
mod executions;
mod extract;
mod inbound_routing;
mod json;
mod keys;
mod managed;
mod members;
mod messages;
mod numbers;
mod organisations;
mod origin;
mod page;
mod scaffolding;
mod schema;
mod table;
mod tokens;
mod trunks;
mod usage;
mod users;
mod versions;
mod waiting;
mod webhooks;
mod workflows;

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Json, Router, middleware};
use ipnet::IpNet;
use serde_json::Value;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::routes;

pub use table::{Access, Route};
pub use waiting::Waiting;

use crate::calls::LiveCalls;
use crate::credential::Scope::{
    self, AgentsManage, AgentsRead, BillingManage, CampaignsManage, CampaignsRead,
    ChildOrganizationsManage, ConcurrencyManage, ConcurrencyRead, ConversationsDial,
    ConversationsManage, ConversationsRead, ConversationsReadSensitive,
    InboundRoutingConfigsManage, InboundRoutingConfigsRead, ManagedAccountsManage,
    ManagedAccountsRead, MembersManage, MembersRead, OperatorManage, OperatorRead,
    OrganizationsManage, PhoneNumbersManage, PhoneNumbersRead, TrunksManage, TrunksRead,
    WebhooksManage, WebhooksRead, WorkflowsManage, WorkflowsRead,
};
use crate::events::StreamLimits;
use crate::fetch::Fetcher;
use crate::llm::Model;
use crate::managed::Managed;
use crate::settings::Settings;
use crate::store::Store;
use crate::workflows::Workflows;
use error::ApiError;
use table::Table;

/// What the API stands on. Clones share everything.
#[derive(Clone)]
pub struct Api {
    /// Where everything is kept.
    pub store: Store,
    /// What is up right now.
    pub calls: Arc<dyn LiveCalls>,
    /// What runs workflows.
    pub workflows: Arc<dyn Workflows>,
    /// The runs that requests wait for.
    pub waiting: Waiting,
    /// Where numbers are bought.
    pub managed: Managed,
    /// Judges the web addresses that customers write.
    pub fetcher: Fetcher,
    /// Who writes texts, if anybody does.
    pub model: Option<Model>,
    /// What the settings say.
    pub options: ApiOptions,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Api {
    const fn address_rules(&self) -> agent_config::AddressRules {
        agent_config::AddressRules {
            allow_plain_ws: self.options.allow_plain_ws,
            allow_private_addresses: self.options.allow_private_addresses,
        }
    }
}

/// The settings that concern the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiOptions {
    /// Bytes of a request body; more gets 413.
    pub max_body_bytes: usize,
    /// How long a request may take that waits for no workflow; more gets 503.
    pub request_timeout: Duration,
    /// Requests at the same time; one more gets 503.
    pub max_concurrent_requests: usize,
    /// Refuse trunks that take calls from anywhere.
    pub require_inbound_protection: bool,
    /// Accept agents at `ws://`.
    pub allow_plain_ws: bool,
    /// Accept agents at private addresses.
    pub allow_private_addresses: bool,
    /// Networks of the proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Streams of events at the same time; one more gets 503.
    pub streams: StreamLimits,
    /// Silence of a stream after which it carries a heartbeat.
    pub heartbeat: Duration,
    /// How long a routing workflow may run.
    pub routing_deadline: Duration,
    /// Calls out at the same time of an organisation that says nothing itself.
    pub outbound_concurrency: u32,
}

impl From<&Settings> for ApiOptions {
    fn from(settings: &Settings) -> Self {
        Self {
            max_body_bytes: settings.api.max_body_bytes,
            request_timeout: Duration::from_secs(settings.api.request_timeout_seconds.into()),
            max_concurrent_requests: settings.api.max_concurrent_requests,
            require_inbound_protection: settings.sip.require_inbound_protection,
            allow_plain_ws: settings.agents.allow_plain_ws,
            allow_private_addresses: settings.agents.allow_private_addresses,
            trusted_proxies: settings.api.trusted_proxies.as_slice().into(),
            streams: StreamLimits {
                per_organisation: settings.events.max_streams_per_organization,
                total: settings.events.max_streams,
            },
            heartbeat: Duration::from_secs(settings.events.heartbeat_seconds.into()),
            routing_deadline: Duration::from_secs(settings.routing.deadline_seconds.into()),
            outbound_concurrency: settings.calls.outbound_concurrency,
        }
    }
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self::from(&Settings::default())
    }
}

/// The whole API as a router, ready to serve.
pub fn router(api: Api) -> Router {
    extract::warm_up();
    let gate = envelope::Gate::new(&api.options);
    let (router, _) = table().router.split_for_parts();
    router
        .fallback(async || ApiError::NotFound("Not found".to_owned()))
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .with_state(api.clone())
        .layer(Extension(api))
        .layer(CatchPanicLayer::custom(envelope::answer_panic))
        .layer(middleware::from_fn_with_state(gate, envelope::enclose))
}

/// The OpenAPI document of the whole API, as `GET /openapi.json` serves it.
#[must_use]
pub fn openapi() -> &'static Value {
    &document::OPENAPI
}

/// What of a request body does not fit the schema that the document has under `name`: each place, with
/// what would fit. For programs that want to know before they ask. An unknown name fits anything.
#[must_use]
pub fn misfits(name: &str, body: &Value) -> Vec<(Vec<Value>, String)> {
    let document = openapi();
    let Some(root) = document.pointer(&format!("/components/schemas/{name}")) else {
        return Vec::new();
    };
    let found = schema::Schema { document, root, enums: false }.violations(body, &[]);
    found.into_iter().map(|violation| (violation.loc, violation.msg)).collect()
}

/// Every route with who may use it.
#[must_use]
pub fn routes() -> Vec<Route> {
    table().rows
}

const AGENTS_READ: &[Scope] = &[AgentsRead, AgentsManage];
const AGENTS_MANAGE: &[Scope] = &[AgentsManage];
const TRUNKS_READ: &[Scope] = &[TrunksRead, TrunksManage];
const TRUNKS_MANAGE: &[Scope] = &[TrunksManage];
const NUMBERS_READ: &[Scope] = &[PhoneNumbersRead, PhoneNumbersManage];
const NUMBERS_MANAGE: &[Scope] = &[PhoneNumbersManage];
const MANAGED_READ: &[Scope] = &[ManagedAccountsRead, ManagedAccountsManage, PhoneNumbersManage];
const MANAGED_MANAGE: &[Scope] = &[PhoneNumbersManage, ManagedAccountsManage];
const OPERATOR_MANAGE: &[Scope] = &[OperatorManage];
const ROUTING_READ: &[Scope] = &[InboundRoutingConfigsRead, InboundRoutingConfigsManage];
const ROUTING_MANAGE: &[Scope] = &[InboundRoutingConfigsManage];
const CONVERSATIONS_READ: &[Scope] =
    &[ConversationsRead, ConversationsReadSensitive, ConversationsManage];
const CONVERSATIONS_MANAGE: &[Scope] = &[ConversationsManage];
const CONVERSATIONS_SENSITIVE: &[Scope] = &[ConversationsReadSensitive];
const CONVERSATIONS_DIAL: &[Scope] = &[ConversationsDial];
const CONVERSATIONS_LISTEN: &[Scope] = &[ConversationsReadSensitive, ConversationsManage];
const CONCURRENCY_READ: &[Scope] =
    &[ConcurrencyRead, ConcurrencyManage, CampaignsRead, CampaignsManage];
const CONCURRENCY_MANAGE: &[Scope] = &[ConcurrencyManage, CampaignsManage];
const DECISIONS_READ: &[Scope] = &[TrunksRead, TrunksManage, OperatorRead, OperatorManage];
const WEBHOOKS_READ: &[Scope] = &[WebhooksRead, WebhooksManage];
const WEBHOOKS_MANAGE: &[Scope] = &[WebhooksManage];
const KEYS_MANAGE: &[Scope] = &[OrganizationsManage];
const MEMBERS_READ: &[Scope] = &[MembersRead, MembersManage];
const MEMBERS_MANAGE: &[Scope] = &[MembersManage];
const CHILDREN_MANAGE: &[Scope] = &[ChildOrganizationsManage, OperatorManage];
const ORGANIZATION_MANAGE: &[Scope] =
    &[OrganizationsManage, ChildOrganizationsManage, OperatorManage];
const BILLING: &[Scope] = &[BillingManage];
const AUDIT_READ: &[Scope] = &[OrganizationsManage, OperatorRead, OperatorManage];
const USERS_READ: &[Scope] = &[OperatorRead, OperatorManage];
const USERS_MANAGE: &[Scope] = &[OperatorManage];
const WORKFLOWS_READ: &[Scope] = &[WorkflowsRead, WorkflowsManage];
const WORKFLOWS_MANAGE: &[Scope] = &[WorkflowsManage];

/// The table: every route, with the scopes of which any one opens it.
fn table() -> Table {
    let table = Table::new()
        .route(Access::Anyone, routes!(get_openapi))
        .route(Access::Anyone, routes!(get_core_openapi))
        .route(Access::Anyone, routes!(get_workflow_openapi))
        .route(Access::Anyone, routes!(get_campaign_openapi))
        .route(Access::Anyone, routes!(get_admin_openapi));
    admin_table(calls_table(agents_table(numbers_table(table))))
}

/// Trunks, numbers and where numbers come from.
fn numbers_table(table: Table) -> Table {
    use Access::AnyOf;
    table
        .route(AnyOf(TRUNKS_READ), routes!(trunks::list_trunks))
        .route(AnyOf(TRUNKS_MANAGE), routes!(trunks::create_trunk))
        .route(AnyOf(TRUNKS_READ), routes!(trunks::get_trunk))
        .route(AnyOf(TRUNKS_MANAGE), routes!(trunks::update_trunk))
        .route(AnyOf(TRUNKS_MANAGE), routes!(trunks::delete_trunk))
        .route(AnyOf(NUMBERS_READ), routes!(numbers::list_phone_numbers))
        .route(AnyOf(NUMBERS_MANAGE), routes!(numbers::create_phone_number))
        .route(AnyOf(NUMBERS_READ), routes!(numbers::get_phone_number))
        .route(AnyOf(NUMBERS_MANAGE), routes!(numbers::update_phone_number))
        .route(AnyOf(NUMBERS_MANAGE), routes!(numbers::delete_phone_number))
        .route(AnyOf(MANAGED_READ), routes!(managed::list_managed_accounts))
        .route(AnyOf(MANAGED_READ), routes!(managed::list_available_numbers))
        .route(AnyOf(MANAGED_MANAGE), routes!(managed::purchase_number))
        .route(AnyOf(MANAGED_MANAGE), routes!(managed::release_number))
        .route(AnyOf(OPERATOR_MANAGE), routes!(managed::create_managed_trunk))
        .route(AnyOf(OPERATOR_MANAGE), routes!(managed::delete_managed_trunk))
}

/// Agents, their versions, and which of them answers.
fn agents_table(table: Table) -> Table {
    use Access::AnyOf;
    table
        .route(AnyOf(AGENTS_READ), routes!(agents::list_agents))
        .route(AnyOf(AGENTS_MANAGE), routes!(agents::create_agent))
        .route(AnyOf(AGENTS_READ), routes!(agents::get_agent))
        .route(AnyOf(AGENTS_MANAGE), routes!(agents::update_agent))
        .route(AnyOf(AGENTS_MANAGE), routes!(agents::delete_agent))
        .route(AnyOf(AGENTS_MANAGE), routes!(agents::deploy_agent_as_sip))
        .route(AnyOf(AGENTS_MANAGE), routes!(agents::undeploy_agent_as_sip))
        .route(AnyOf(AGENTS_READ), routes!(agents::get_agent_config_schema))
        .route(AnyOf(AGENTS_READ), routes!(default_runtime::get_default_runtime))
        .route(AnyOf(AGENTS_MANAGE), routes!(default_runtime::update_default_runtime))
        .route(AnyOf(AGENTS_MANAGE), routes!(scaffolding::create_agent_from_website))
        .route(AnyOf(AGENTS_MANAGE), routes!(scaffolding::create_demo_agent))
        .route(AnyOf(AGENTS_READ), routes!(scaffolding::get_agent_scaffolding))
        .route(AnyOf(AGENTS_READ), routes!(versions::list_agent_versions))
        .route(AnyOf(AGENTS_MANAGE), routes!(versions::create_agent_version))
        .route(AnyOf(AGENTS_READ), routes!(versions::get_agent_version))
        .route(AnyOf(AGENTS_MANAGE), routes!(versions::update_agent_version))
        .route(AnyOf(AGENTS_MANAGE), routes!(versions::publish_agent_version))
        .route(AnyOf(AGENTS_MANAGE), routes!(versions::generate_agent_instructions))
        .route(AnyOf(AGENTS_READ), routes!(versions::compare_agent_versions))
        .route(AnyOf(ROUTING_READ), routes!(inbound_routing::get_inbound_routing_config))
        .route(AnyOf(ROUTING_MANAGE), routes!(inbound_routing::create_inbound_routing_config))
        .route(AnyOf(ROUTING_MANAGE), routes!(inbound_routing::update_inbound_routing_config))
        .route(AnyOf(ROUTING_MANAGE), routes!(inbound_routing::delete_inbound_routing_config))
        .route(AnyOf(ROUTING_MANAGE), routes!(inbound_routing::dry_run_inbound_routing))
}

/// Calls, and who hears of them.
fn calls_table(table: Table) -> Table {
    use Access::AnyOf;
    table
        .route(AnyOf(CONVERSATIONS_READ), routes!(conversations::list_conversations))
        .route(AnyOf(CONVERSATIONS_READ), routes!(conversations::get_conversation))
        .route(AnyOf(CONVERSATIONS_MANAGE), routes!(conversations::annotate_conversation))
        .route(AnyOf(CONVERSATIONS_MANAGE), routes!(calls::create_conversation))
        .route(AnyOf(CONVERSATIONS_DIAL), routes!(calls::dial_conversation))
        .route(AnyOf(CONVERSATIONS_MANAGE), routes!(calls::hang_up_conversation))
        .route(AnyOf(CONVERSATIONS_MANAGE), routes!(calls::transfer_conversation))
        .route(AnyOf(CONVERSATIONS_MANAGE), routes!(messages::send_conversation_message))
        .route(AnyOf(CONVERSATIONS_MANAGE), routes!(messages::end_conversation))
        .route(AnyOf(CONVERSATIONS_LISTEN), routes!(messages::create_listener_token))
        .route(AnyOf(CONVERSATIONS_SENSITIVE), routes!(assist::get_agent_assist))
        .route(AnyOf(CONCURRENCY_READ), routes!(concurrency::get_concurrency_settings))
        .route(AnyOf(CONCURRENCY_MANAGE), routes!(concurrency::update_concurrency_settings))
        .route(AnyOf(DECISIONS_READ), routes!(decisions::list_call_decisions))
        .route(AnyOf(CONVERSATIONS_READ), routes!(events::stream_events))
        .route(AnyOf(WEBHOOKS_READ), routes!(webhooks::list_webhooks))
        .route(AnyOf(WEBHOOKS_MANAGE), routes!(webhooks::create_webhook))
        .route(AnyOf(WEBHOOKS_READ), routes!(webhooks::get_webhook))
        .route(AnyOf(WEBHOOKS_MANAGE), routes!(webhooks::update_webhook))
        .route(AnyOf(WEBHOOKS_MANAGE), routes!(webhooks::delete_webhook))
        .route(AnyOf(WEBHOOKS_MANAGE), routes!(webhooks::rotate_webhook_secret))
        .route(AnyOf(WEBHOOKS_MANAGE), routes!(webhooks::test_webhook))
        .route(AnyOf(WEBHOOKS_READ), routes!(webhooks::list_webhook_deliveries))
        .route(AnyOf(WEBHOOKS_READ), routes!(webhooks::get_webhook_delivery))
        .route(AnyOf(WEBHOOKS_MANAGE), routes!(webhooks::replay_webhook_delivery))
        .route(AnyOf(WEBHOOKS_MANAGE), routes!(webhooks::replay_dead_deliveries))
}

/// Organisations, people and their credentials.
fn admin_table(table: Table) -> Table {
    use Access::{AnyKey, AnyOf, AnyUser};
    table
        .route(AnyOf(KEYS_MANAGE), routes!(keys::create_organization_pat))
        .route(AnyOf(KEYS_MANAGE), routes!(keys::list_organization_pats))
        .route(AnyOf(KEYS_MANAGE), routes!(keys::delete_organization_pat))
        .route(AnyOf(WORKFLOWS_READ), routes!(workflows::list_workflows))
        .route(AnyOf(WORKFLOWS_MANAGE), routes!(workflows::create_workflow))
        .route(AnyOf(WORKFLOWS_READ), routes!(workflows::get_workflow))
        .route(AnyOf(WORKFLOWS_MANAGE), routes!(workflows::update_workflow))
        .route(AnyOf(WORKFLOWS_MANAGE), routes!(workflows::delete_workflow))
        .route(AnyOf(WORKFLOWS_READ), routes!(workflows::list_workflow_versions))
        .route(AnyOf(WORKFLOWS_MANAGE), routes!(workflows::create_workflow_version))
        .route(AnyOf(WORKFLOWS_READ), routes!(workflows::get_workflow_version))
        .route(AnyOf(WORKFLOWS_MANAGE), routes!(workflows::update_workflow_version))
        .route(AnyOf(WORKFLOWS_MANAGE), routes!(workflows::publish_workflow_version))
        .route(AnyOf(WORKFLOWS_READ), routes!(executions::list_workflow_executions))
        .route(AnyOf(WORKFLOWS_MANAGE), routes!(executions::execute_workflow))
        .route(AnyOf(WORKFLOWS_MANAGE), routes!(executions::enqueue_workflow))
        .route(AnyOf(WORKFLOWS_READ), routes!(executions::get_workflow_execution))
        .route(AnyOf(WORKFLOWS_MANAGE), routes!(executions::cancel_workflow_execution))
        .route(AnyKey, routes!(keys::get_my_scopes))
        .route(AnyUser, routes!(tokens::list_my_organizations))
        .route(AnyUser, routes!(tokens::create_personal_access_token))
        .route(AnyUser, routes!(tokens::list_personal_access_tokens))
        .route(AnyUser, routes!(tokens::delete_personal_access_token))
        .route(AnyOf(MEMBERS_READ), routes!(members::list_members))
        .route(AnyOf(MEMBERS_MANAGE), routes!(members::add_member))
        .route(AnyOf(MEMBERS_READ), routes!(members::get_member))
        .route(AnyOf(MEMBERS_MANAGE), routes!(members::update_member))
        .route(AnyOf(MEMBERS_MANAGE), routes!(members::remove_member))
        .route(AnyKey, routes!(organisations::list_organizations))
        .route(AnyKey, routes!(organisations::get_organization))
        .route(AnyOf(CHILDREN_MANAGE), routes!(organisations::create_organization))
        .route(AnyOf(ORGANIZATION_MANAGE), routes!(organisations::update_organization))
        .route(AnyOf(CHILDREN_MANAGE), routes!(organisations::create_pat_for_organization))
        .route(AnyOf(CHILDREN_MANAGE), routes!(organisations::add_member_to_organization))
        .route(AnyOf(USERS_READ), routes!(users::list_users))
        .route(AnyOf(USERS_MANAGE), routes!(users::create_user))
        .route(AnyOf(USERS_MANAGE), routes!(users::delete_user))
        .route(AnyOf(USERS_MANAGE), routes!(users::create_token_for_user))
        .route(AnyOf(BILLING), routes!(usage::get_usage_summary))
        .route(AnyOf(AUDIT_READ), routes!(audit::list_audit_log))
        .route(AnyOf(AUDIT_READ), routes!(audit::verify_audit_log))
}

/// The document of the whole API.
#[utoipa::path(get, path = "/openapi.json", tag = "meta",
    responses((status = 200, description = "An OpenAPI document", body = Object)))]
async fn get_openapi() -> Json<&'static Value> {
    Json(openapi())
}

/// The document of what is below `/core`.
#[utoipa::path(get, path = "/core/openapi.json", tag = "meta",
    responses((status = 200, description = "An OpenAPI document", body = Object)))]
async fn get_core_openapi() -> Json<&'static Value> {
    Json(document::service("core"))
}

/// The document of what is below `/workflow`.
#[utoipa::path(get, path = "/workflow/openapi.json", tag = "meta",
    responses((status = 200, description = "An OpenAPI document", body = Object)))]
async fn get_workflow_openapi() -> Json<&'static Value> {
    Json(document::service("workflow"))
}

/// The document of what is below `/campaign`.
#[utoipa::path(get, path = "/campaign/openapi.json", tag = "meta",
    responses((status = 200, description = "An OpenAPI document", body = Object)))]
async fn get_campaign_openapi() -> Json<&'static Value> {
    Json(document::service("campaign"))
}

/// The document of what is below `/admin`.
#[utoipa::path(get, path = "/admin/openapi.json", tag = "meta",
    responses((status = 200, description = "An OpenAPI document", body = Object)))]
async fn get_admin_openapi() -> Json<&'static Value> {
    Json(document::service("admin"))
}
