//! The methods of SIP (RFC 3261 §7.1 and the extensions that registered more).
//!
//! Methods compare by case (RFC 3261 §7.1): `invite` is an unknown method, not an INVITE. The token
//! of an unknown method stays in the message, this enum only says that it is none of ours.

macro_rules! methods {
    ($($variant:ident $token:literal $doc:literal;)*) => {
        /// What a request asks for.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Method {
            $(#[doc = $doc] $variant,)*
            /// A token that is none of these; [`crate::Request::method_token`] has it.
            Other,
        }

        impl Method {
            /// Every method with a name of its own.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Which method a token names; case matters.
            #[must_use]
            pub fn parse(token: &[u8]) -> Self {
                $(if token == $token.as_bytes() { return Self::$variant; })*
                Self::Other
            }

            /// The token; empty for [`Method::Other`], which has none of its own.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $token,)* Self::Other => "" }
            }
        }
    };
}

methods! {
    Invite "INVITE" "Opens a session, or changes one (RFC 3261 §13, §14).";
    Ack "ACK" "Confirms the final response to an INVITE (RFC 3261 §13, §17).";
    Bye "BYE" "Ends a session (RFC 3261 §15).";
    Cancel "CANCEL" "Withdraws an INVITE (RFC 3261 §9).";
    Options "OPTIONS" "Asks what the other side can do (RFC 3261 §11).";
    Register "REGISTER" "Binds an address of record to a contact (RFC 3261 §10).";
    Info "INFO" "Carries application data inside a dialog (RFC 6086).";
    Update "UPDATE" "Changes a session without the INVITE's three ways (RFC 3311).";
    Prack "PRACK" "Confirms a reliable provisional response (RFC 3262).";
    Refer "REFER" "Asks the other side to send a request (RFC 3515).";
    Notify "NOTIFY" "Reports an event (RFC 6665).";
    Subscribe "SUBSCRIBE" "Asks for events (RFC 6665).";
    Message "MESSAGE" "An instant message (RFC 3428).";
    Publish "PUBLISH" "Publishes event state (RFC 3903).";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_reads_its_own_token() {
        for &method in Method::ALL {
            assert_eq!(Method::parse(method.as_str().as_bytes()), method);
        }
    }

    #[test]
    fn methods_compare_by_case_and_are_never_unescaped() {
        assert_eq!(Method::parse(b"invite"), Method::Other);
        assert_eq!(Method::parse(b"RE%47IST%45R"), Method::Other);
        assert_eq!(Method::parse(b""), Method::Other);
    }
}
