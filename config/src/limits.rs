//! Every limit of the product in one table, each with its unit and its reason.
//!
//! A limit that an operator may lower or raise is a setting; the table then holds the bound of that
//! setting. The crates `sip` and `media` know nobody, so they keep constants of their own; the rows
//! that name them as owner state what those constants must be.

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
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Packets in one second.
    PacketsPerSecond,
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
        "Bound of sip.max_connections: file descriptors; then the idlest stranger is closed.";
    SIP_MESSAGE_BYTES = 65_536 Bytes, Sip,
        "One SIP message, header block and body: a UDP datagram holds no more; then 413 or silence.";
    SIP_HEADERS = 64 Count, Sip,
        "Header lines of one message: spans are kept without allocation; then it is malformed.";
    SDP_MEDIA_LINES = 8 Count, Media,
        "m= lines of one description: a telephone call has one or two; then 488.";
    SDP_FORMATS = 32 Count, Media,
        "Payload types of one m= line: a courteous phone offers a dozen; the rest is not read.";
    SDP_CRYPTO_LINES = 16 Count, Media,
        "a=crypto lines of one m= line: there are eight suites; the rest is not read.";
    MEDIA_SSRCS = 4 Count, Media,
        "Sources that one SRTP direction keeps state for, only after authentication; then dropped.";
    MEDIA_PACKETS_PER_SECOND = 500 PacketsPerSecond, Media,
        "Packets of one leg: ten times a 20 ms stream; then dropped before decryption.";
    AGENT_BUFFER_BYTES = 262_144 Bytes, Gateway,
        "Audio and messages held for one agent link that stalls; then the oldest audio goes.";

    // --- what customers configure
    NAME_CHARACTERS = 255 Characters, Config,
        "Names of trunks, agents and keys: they are shown in one line; then 422.";
    DESCRIPTION_CHARACTERS = 4_096 Characters, Config,
        "An agent's description: prose, not a document; then 422.";
    ADDRESS_CHARACTERS = 255 Characters, Config,
        "A carrier's host, with port: RFC 1035 §2.3.4 allows no longer name; then 422.";
    CREDENTIAL_CHARACTERS = 255 Characters, Config,
        "A digest user name or password: it travels in one header line; then 422.";
    ALLOWED_ADDRESSES = 1_024 Count, Config,
        "Networks of one trunk: the largest carrier lists some hundred; then 422.";
    TRUNK_CALLS = 100_000 Count, Config,
        "Bound of a trunk's max_concurrent_calls and calls_per_second; then 422.";
    TRUNK_RING_SECONDS = 300 Seconds, Config,
        "Bound of a trunk's ring_timeout_seconds: carriers give up after three minutes; then 422.";
    TRUNK_DURATION_SECONDS = 604_800 Seconds, Config,
        "Bound of a trunk's max_duration_seconds: a week is a forgotten call; then 422.";
    PUBLISH_NUMBERS = 1_000 Count, Config,
        "Numbers of one publish request: they are written in one transaction; then 422.";
    KEY_NAME_CHARACTERS = 255 Characters, Config,
        "An API key's name; then 422.";
    RUNTIME_PARAMETERS = 64 Count, Config,
        "Custom parameters of an agent runtime: they travel in its start message; then 422.";
    RUNTIME_PARAMETER_CHARACTERS = 1_024 Characters, Config,
        "One custom parameter of an agent runtime; then 422.";
    RUNTIME_URL_CHARACTERS = 2_048 Characters, Config,
        "An agent's URL: proxies cut longer request lines; then 422.";

    // --- the API
    API_BODY_DEPTH = 32 Count, Config,
        "Nesting of a JSON body: no object of ours needs ten, and recursion costs stack; then 422.";
    API_BODY_ITEMS = 10_000 Count, Config,
        "Values in a JSON body: bounds what one request makes us allocate; then 422.";
    API_PAGE = 1_000 Count, Config,
        "Items of one page: some MiB of JSON at most; then 422.";
    API_PAGE_DEFAULT = 100 Count, Config,
        "Items of a page whose request names no limit.";
    API_CURSOR_CHARACTERS = 512 Characters, Config,
        "A cursor: ours are a fifth of that; then 422.";
    API_CREDENTIAL_CHARACTERS = 512 Characters, Config,
        "An Authorization header: a key is a fifth of that; then 401 before anything is looked up.";
    API_FILTER_CHARACTERS = 4_096 Characters, Config,
        "A JSON filter in a query; then 422.";
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
