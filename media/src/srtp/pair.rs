//! The session of a leg: one context to send with, another to receive with.

use super::{Context, Direction, MasterKey, SrtpError, SrtpSession, Suite};

/// Both directions of a leg: our key for what we send, the peer's for what we receive.
pub struct SrtpPair {
    outbound: Context,
    inbound: Context,
}

impl SrtpPair {
    /// `local` is the key of our own `a=crypto` line, `remote` the peer's.
    #[must_use]
    pub fn new(suite: Suite, local: &MasterKey, remote: &MasterKey) -> Self {
        Self { outbound: Context::new(suite, local), inbound: Context::new(suite, remote) }
    }

    /// From two contexts made otherwise, such as with a master key identifier.
    #[must_use]
    pub const fn from_contexts(outbound: Context, inbound: Context) -> Self {
        Self { outbound, inbound }
    }

    const fn context(&self, direction: Direction) -> &Context {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }
}

impl SrtpSession for SrtpPair {
    fn protect(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        self.outbound.protect(buffer, len)
    }

    fn unprotect(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        self.inbound.unprotect(buffer, len)
    }

    fn protect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        self.outbound.protect_rtcp(buffer, len)
    }

    fn unprotect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        self.inbound.unprotect_rtcp(buffer, len)
    }

    fn roc(&self, direction: Direction, ssrc: u32) -> Option<u32> {
        self.context(direction).roc(ssrc)
    }

    fn set_roc(&mut self, direction: Direction, ssrc: u32, roc: u32) -> Result<(), SrtpError> {
        match direction {
            Direction::Outbound => self.outbound.set_roc(ssrc, roc),
            Direction::Inbound => self.inbound.set_roc(ssrc, roc),
        }
    }
}
