//! Every limit of the product in one table, each with its unit and its reason.
//!
//! A limit that an operator may lower or raise is a setting; the table then holds the bound of that
//! setting. The crates `sip` and `media` know nobody, so they keep constants of their own; a test
//! holds the rows that name them as owner equal to those constants.

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Stable name, `noun_unit`.
    pub name: &'static str,
    /// The greatest value that is let through.
    pub value: u64,
    /// What is counted.
    pub unit: Unit,
    /// The crate that enforces it.
    pub owner: Owner,
    /// Why it exists and why it is this large; and what happens beyond it.
    pub reason: &'static str,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Octets.
    Bytes,
    /// Unicode characters.
    Characters,
    /// Seconds.
    Seconds,
}

/// Which crate enforces a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This crate: settings, store, API.
    Config,
    /// The SIP protocol.
    Sip,
    /// Packets, SDP and audio.
    Media,
    /// Calls and agent links.
    Gateway,
}

impl Limit {
    /// The value where a `u32` is needed; saturates, which no row of the table does.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the branch above saturates")]
    pub const fn value_u32(self) -> u32 {
        if self.value > u32::MAX as u64 { u32::MAX } else { self.value as u32 }
    }

    /// The value where a `usize` is needed.
    #[must_use]
    pub const fn value_usize(self) -> usize {
        self.value_u32() as usize
    }
}

/// Declares the rows and the table of all of them.
macro_rules! limits {
    ($($name:ident = $value:literal $unit:ident, $owner:ident, $reason:literal;)+) => {
        $(
            #[doc = $reason]
            pub const $name: Limit = Limit {
                name: stringify!($name),
                value: $value,
                unit: Unit::$unit,
                owner: Owner::$owner,
                reason: $reason,
            };
        )+

        /// All limits, in the order they are declared.
        pub const ALL: &[Limit] = &[$($name),+];
    };
}

limits! {
    // --- calls and connections
    MAX_CALLS = 16_000 Count, Gateway,
        "Bound of sip.max_calls: with two legs of two ports each it takes 64,000 ports; then 503.";
    MAX_CONNECTIONS = 60_000 Count, Gateway,
        "Bound of sip.max_connections: file descriptors; one more is closed at once.";
    OUTBOUND_CONCURRENCY = 10_000 Count, Config,
        "Bound of calls out of an organisation at a time: more than a node carries; then 422.";
    OUTBOUND_QUEUE = 100_000 Count, Config,
        "Bound of calls.outbound_queue: a waiting call takes some KiB of memory; then 503.";
    AGENT_HEADER_BYTES = 2_048 Bytes, Gateway,
        "What is told to a SIP agent in one header: four of ours stay below 8 KiB; then left out.";
    SIP_MESSAGE_BYTES = 65_535 Bytes, Sip,
        "One SIP message, header block and body: a UDP datagram holds no more; then 413 or silence.";
    SIP_HEADER_LINES = 128 Count, Sip,
        "Header lines of one message: five times a long one; then it is malformed.";
    SIP_HEADER_BYTES = 8_192 Bytes, Sip,
        "One header line with its folds: the longest credentials fit twice; then it is malformed.";
    SIP_VIAS = 64 Count, Sip,
        "Via values of one message: RFC 4475 §3.1.1.7 has 34; then it is malformed.";
    SDP_BYTES = 65_536 Bytes, Media,
        "One session description: it cannot be longer than the message around it; then 488.";
    SDP_LINES = 1_024 Count, Media,
        "Lines of one session description: with many candidates there are some hundred; then 488.";
    SDP_MEDIA_LINES = 8 Count, Media,
        "m= lines of one description: a telephone call has one or two; then 488.";
    SDP_FORMATS = 32 Count, Media,
        "Payload types of one m= line: a courteous phone offers a dozen; the rest is not read.";
    SRTP_STREAMS = 16 Count, Media,
        "Sources that one SRTP key keeps state for, only after authentication; then dropped.";
    AGENT_MESSAGE_BYTES = 1_048_576 Bytes, Gateway,
        "One message of an agent: base64 of a minute and a half of audio; then the link is closed.";
    AGENT_MARKS = 512 Count, Gateway,
        "Marks of an agent that wait at once: agents mark sentences, not frames; then dropped.";

    // --- what customers configure
    NAME_BYTES = 255 Bytes, Config,
        "Names, user names and host names: shown in one line, and RFC 1035 §2.3.4; then 422.";
    EMAIL_BYTES = 254 Bytes, Config,
        "An e-mail address: what RFC 5321 §4.5.3.1.3 leaves of a path; then 422.";
    ORGANISATION_KEYS = 10_000 Count, Config,
        "API keys of one organisation: all are kept in memory; then 400.";
    ORGANISATION_MEMBERS = 10_000 Count, Config,
        "Members of one organisation: all are kept in memory; then 400.";
    ORGANISATION_CHILDREN = 10_000 Count, Config,
        "Organisations right below one: a reseller's customers; then 400.";
    ORGANISATION_DEPTH = 8 Count, Config,
        "Organisations from a root down to a leaf: the tree is walked at every look below; then 400.";
    USER_TOKENS = 1_000 Count, Config,
        "Personal access tokens of one user: all are kept in memory; then 400.";
    TEXT_BYTES = 10_000 Bytes, Config,
        "An agent's description, a conversation's summary: prose, not a document; then 422.";
    PASSWORD_BYTES = 1_024 Bytes, Config,
        "A digest password: more would be hashed for nothing; then 422.";
    ALLOWED_ADDRESSES = 1_024 Count, Config,
        "Networks of one trunk: the largest carrier lists some hundred; then 422.";
    TRUNK_CALLS = 100_000 Count, Config,
        "Bound of a trunk's max_concurrent_calls and calls_per_second; then 422.";
    TRUNK_RING_SECONDS = 300 Seconds, Config,
        "Bound of a trunk's ring_timeout_seconds: carriers give up after three minutes; then 422.";
    TRUNK_DURATION_SECONDS = 604_800 Seconds, Config,
        "Bound of a trunk's max_duration_seconds: a week is a forgotten call; then 422.";
    INITIAL_CONTEXT_BYTES = 65_536 Bytes, Config,
        "What an agent is told before a call: a long prompt, and it is kept in memory; then 422.";
    ROUTING_HEADERS = 32 Count, Config,
        "Own headers of an INVITE that a routing workflow is told of: the rest is left out; or 422.";
    ROUTING_HEADER_BYTES = 1_024 Bytes, Config,
        "One of them, name or value: a token or a link, not a document; it is left out; or 422.";
    TRANSCRIPT_ITEMS = 2_000 Count, Config,
        "Turns and calls of tools of one transcript: some hours of talk; then 422.";
    TRANSCRIPT_BYTES = 131_072 Bytes, Config,
        "A transcript as JSON: an hour of talk twice; then 422.";
    CONVERSATIONS_PAGE_BYTES = 8_388_608 Bytes, Config,
        "Transcripts and contexts in one list: of a thousand, 8 KiB each; absent from the other rows.";
    CUSTOM_METADATA_BYTES = 16_384 Bytes, Config,
        "A conversation's own data as JSON: filters read every row's; then 422.";
    PUBLISH_NUMBERS = 1_000 Count, Config,
        "Numbers of one publish request: they are written in one transaction; then 422.";
    AVAILABLE_NUMBERS = 100 Count, Config,
        "Numbers of one search at a managed account: people choose from a screenful; then 422.";
    POOL_NUMBERS = 100_000 Count, Config,
        "Numbers of the settings' pool: a search reads them all; then the settings are refused.";
    RUNTIME_PARAMETERS = 64 Count, Config,
        "Custom parameters of an agent runtime: they travel in its start message; then 422.";
    RUNTIME_PARAMETER_CHARACTERS = 1_024 Characters, Config,
        "One custom parameter of an agent runtime: a word or a link, not a document; then 422.";
    RUNTIME_HEADERS = 16 Count, Config,
        "Headers of a SIP agent: with ours the INVITE must stay far below 64 KiB; then 422.";
    RUNTIME_URL_CHARACTERS = 2_048 Characters, Config,
        "An agent's URL: proxies cut longer request lines; then 422.";

    // --- asking others over HTTP
    FETCH_URL_CHARACTERS = 2_048 Characters, Config,
        "A URL that is fetched: proxies cut longer request lines; then it is not fetched.";
    LLM_PROMPT_BYTES = 262_144 Bytes, Config,
        "What a language model is asked: about 64,000 tokens; the end of the material is cut off.";
    LLM_ANSWER_BYTES = 262_144 Bytes, Config,
        "What a language model may answer: far more than any prompt of ours asks for; then broken.";
    LLM_EVENT_BYTES = 262_144 Bytes, Config,
        "One event of a model's stream: a few tokens with their envelope; then broken.";

    // --- workflows
    WORKFLOW_DEFINITION_BYTES = 262_144 Bytes, Config,
        "A definition as JSON: its largest parts are code; the snapshot keeps it in memory; then 422.";
    WORKFLOW_STEPS = 200 Count, Config,
        "Steps of one definition, and edges: nobody oversees more on a screen; then 422.";
    WORKFLOW_BRANCHES = 50 Count, Config,
        "Branches of one condition: a table of more belongs in code; then 422.";
    WORKFLOW_FIELDS = 100 Count, Config,
        "Fields of one step: inputs, outputs, headers, parameters; then 422.";
    WORKFLOW_STEP_ID_CHARACTERS = 64 Characters, Config,
        "A step's id; its name may have four times as many bytes; then 422.";
    WORKFLOW_EXPRESSION_BYTES = 8_192 Bytes, Config,
        "One JSONata expression: parsing recurses, and a longer one belongs in code; then 422.";
    WORKFLOW_CODE_BYTES = 65_536 Bytes, Config,
        "The Python of one step: it is sent to a worker with every run; then 422.";
    WORKFLOW_HTTP_SECONDS = 60 Seconds, Config,
        "Bound of a step's timeout_seconds: whoever waits longer should be called back; then 422.";
    WORKFLOW_SYNC_SECONDS = 60 Seconds, Config,
        "A run that a request waits for, whatever other requests may take; then it has failed.";
    WORKFLOW_SYNC_RUNS = 16 Count, Config,
        "Runs of an organisation that requests wait for: they take room from the others'; then 503.";
    WORKFLOWS = 1_000 Count, Config,
        "Workflows of one organisation: a list that nobody oversees; then 400.";
    WORKFLOW_VERSIONS = 10_000 Count, Config,
        "Versions of one workflow: years of changes each hour; then 400.";
    WORKFLOW_EXECUTIONS = 10_000 Count, Config,
        "Runs of an organisation that are kept as records; the oldest that are over go first.";
    WORKFLOW_EXECUTION_BYTES = 268_435_456 Bytes, Config,
        "The JSON in those records: 26 KiB each of ten thousand; the oldest that are over go first.";
    WORKFLOW_RUN_SECONDS = 2_592_000 Seconds, Config,
        "Bound of a definition's timeout_seconds: a month of waiting; then 422.";
    WORKFLOW_RUN_STEPS = 1_000 Count, Gateway,
        "Steps of one run: five rounds through the longest definition; then it has failed.";
    WORKFLOW_CONTEXT_BYTES = 1_048_576 Bytes, Gateway,
        "What a run remembers, as JSON: it is sent to a worker at every step; then it has failed.";
    WORKFLOW_OUTPUT_BYTES = 262_144 Bytes, Gateway,
        "What one step gives, as JSON: a quarter of the context; then the step has failed.";
    WORKFLOW_OUTPUT_VALUES = 10_000 Count, Gateway,
        "Values in what one step gives: each takes 100 bytes of memory at least; then it has failed.";
    WORKFLOW_CONTEXT_VALUES = 20_000 Count, Gateway,
        "Values in what a run remembers: two MiB and more of memory; then it has failed.";
    WORKFLOW_WORKERS = 64 Count, Config,
        "Bound of workflows.workers: processes of which one core feeds a handful.";
    // --- work that goes on after its request was answered
    JOBS_AT_ONCE = 32 Count, Config,
        "Jobs of a node but for runs of workflows: they mostly wait for others; the rest waits.";
    JOBS_RUNNING_WORKFLOWS = 128 Count, Config,
        "Runs of a node in the background, and as many after conversations: what they hold in memory.";
    JOBS_OF_ORGANIZATION = 2 Count, Config,
        "Jobs of one organisation at a time, but for runs of workflows: all get their turn.";
    RUNS_OF_ORGANIZATION = 16 Count, Config,
        "The same for its runs in the background, and after conversations: an eighth of a node's places.";
    JOBS_WAITING = 1_000 Count, Config,
        "Jobs of one kind of an organisation that are due or at work: whoever never stops is told; then 400.";
    RUNS_AFTER_WAITING = 10_000 Count, Config,
        "The same for runs after conversations: a node that dies ends thousands; then they fail as busy.";
    JOBS_ASLEEP = 100_000 Count, Config,
        "Jobs of one kind of an organisation that wait for a later time: a day's calls; then no more.";
    JOB_ATTEMPTS = 5 Count, Config,
        "Times that a job is begun, crashes of the node among them; then it has failed.";
    JOB_LEASE_SECONDS = 30 Seconds, Config,
        "How long a node that fell silent keeps a job: six missed renewals; then another takes it.";
    JOB_KEPT_SECONDS = 604_800 Seconds, Config,
        "How long a job that is over can be asked about: a week; then it is forgotten.";

    // --- the API
    API_BODY_DEPTH = 32 Count, Config,
        "Nesting of a JSON body: no object of ours needs ten, and recursion costs stack; then 422.";
    API_BODY_ITEMS = 10_000 Count, Config,
        "Values in a JSON body: bounds what one request makes us allocate; then 422.";
    API_TRANSCRIPT_VALUES = 65_536 Count, Config,
        "The same of a transcript: TRANSCRIPT_BYTES end first, a value being two bytes at least.";
    API_VIOLATIONS = 100 Count, Config,
        "Violations told of one request: nobody reads more, and a reply must not outgrow its body.";
    API_PAGE = 1_000 Count, Config,
        "Items of one page: some MiB of JSON at most; then 422.";
    API_PAGE_DEFAULT = 100 Count, Config,
        "Items of a page whose request names no limit.";
    USAGE_DAYS = 366 Count, Config,
        "Days of one usage summary, as the contract says: a year reads every call of it; then 422.";
    API_CURSOR_CHARACTERS = 512 Characters, Config,
        "A cursor: ours are a fifth of that; then 422.";
    API_CREDENTIAL_CHARACTERS = 512 Characters, Config,
        "An Authorization header: a key is a fifth of that; then 401 before anything is looked up.";
    API_AUDIT_OBJECT_BYTES = 64 Bytes, Config,
        "What a refused request names: our ids and numbers are shorter; longer is not written down.";
    API_FILTER_CHARACTERS = 4_096 Characters, Config,
        "A JSON filter in a query: proxies cut request lines at 8 KiB; then 422.";
    WEBHOOK_URL_CHARACTERS = 2_048 Characters, Config,
        "A webhook's URL: proxies cut longer request lines; then 422.";
    WEBHOOK_SECRET_OVERLAP_SECONDS = 604_800 Seconds, Config,
        "Bound of overlap_seconds: receivers are changed over within a week; then 422.";
    WEBHOOK_PENDING = 10_000 Count, Config,
        "Events that wait for one webhook: a dead receiver must not fill the disk; then dropped.";
    WEBHOOK_FINISHED_KEPT = 1_000 Count, Config,
        "Deliveries of a webhook that are kept once taken, and as many given up; the oldest go.";
    WEBHOOK_LANE = 8 Count, Config,
        "Requests to one webhook at the same time: of different calls, as those of one are in order.";
    WEBHOOK_REQUESTS = 256 Count, Config,
        "Requests to all webhooks at the same time: some KiB and a socket each; the rest waits.";
    EVENT_RING_EVENTS = 1_000 Count, Config,
        "Events an organisation's streams can resume from: minutes of a busy one; older are lost.";
    EVENT_RING_BYTES = 262_144 Bytes, Config,
        "The same in memory: metadata may be large, and organisations are many; older are lost.";
    EVENT_RINGS = 1_000 Count, Config,
        "Organisations whose events are kept for streams: the longest without a stream goes first.";
    EVENT_RESUME_SECONDS = 300 Seconds, Config,
        "How long events are kept for a stream that broke off: a client reconnects in seconds.";
    EVENT_WRITE_SECONDS = 30 Seconds, Config,
        "How long a stream's client may take nothing of what is sent; then it is cut off.";
    JOURNAL_ENTRIES = 10_000 Count, Config,
        "Records of calls waiting for the database: minutes of a busy node; decisions drop first.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_reason_and_a_name_of_its_own() {
        for (index, limit) in ALL.iter().enumerate() {
            assert!(limit.value > 0, "{} lets nothing through", limit.name);
            assert!(limit.reason.len() > 30, "{} has no reason", limit.name);
            assert!(ALL.iter().skip(index + 1).all(|other| other.name != limit.name));
        }
    }
}
