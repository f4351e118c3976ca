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
        "Bound of calls.outbound_concurrency: more than a node carries; the rest waits.";
    OUTBOUND_QUEUE = 100_000 Count, Config,
        "Bound of calls.outbound_queue: a waiting call takes some KiB of memory; then 503.";
    POST_CONVERSATION_RUNS = 1_024 Count, Config,
        "Bound of routing.post_conversation_runs: each may hold a worker; the rest waits.";
    POST_CONVERSATION_QUEUE = 100_000 Count, Config,
        "Bound of routing.post_conversation_queue: a waiting run takes some KiB; then left out.";
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
    TEXT_BYTES = 10_000 Bytes, Config,
        "An agent's description: prose, not a document; then 422.";
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

    // --- the API
    API_BODY_DEPTH = 32 Count, Config,
        "Nesting of a JSON body: no object of ours needs ten, and recursion costs stack; then 422.";
    API_BODY_ITEMS = 10_000 Count, Config,
        "Values in a JSON body: bounds what one request makes us allocate; then 422.";
    API_VIOLATIONS = 100 Count, Config,
        "Violations told of one request: nobody reads more, and a reply must not outgrow its body.";
    API_PAGE = 1_000 Count, Config,
        "Items of one page: some MiB of JSON at most; then 422.";
    API_PAGE_DEFAULT = 100 Count, Config,
        "Items of a page whose request names no limit.";
    API_CURSOR_CHARACTERS = 512 Characters, Config,
        "A cursor: ours are a fifth of that; then 422.";
    API_CREDENTIAL_CHARACTERS = 512 Characters, Config,
        "An Authorization header: a key is a fifth of that; then 401 before anything is looked up.";
    API_FILTER_CHARACTERS = 4_096 Characters, Config,
        "A JSON filter in a query: proxies cut request lines at 8 KiB; then 422.";
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
