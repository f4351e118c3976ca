//! The SRTP contexts of a leg, and which of them survive a new plan.

use crate::sdp::SrtpKeys;
use crate::srtp::{Context, SrtpError, Suite};

/// Both directions of a secured leg.
pub(super) struct Secured {
    suite: Suite,
    local_epoch: u32,
    remote_epoch: u32,
    outbound: Context,
    inbound: Context,
}

impl Secured {
    /// The contexts for `keys`, taking over from `previous` those whose key has not changed: their
    /// rollover counters and replay windows go on. A new key starts both anew (RFC 3711 §3.3.1).
    pub(super) fn renew(previous: Option<Self>, keys: &SrtpKeys) -> Self {
        let suite = keys.suite;
        let kept = previous.filter(|previous| previous.suite == suite);
        let (mut outbound, mut inbound) = (None, None);
        if let Some(previous) = kept {
            outbound = (previous.local_epoch == keys.local_epoch).then_some(previous.outbound);
            inbound = (previous.remote_epoch == keys.remote_epoch).then_some(previous.inbound);
        }
        Self {
            suite,
            local_epoch: keys.local_epoch,
            remote_epoch: keys.remote_epoch,
            outbound: outbound.unwrap_or_else(|| Context::new(suite, &keys.local)),
            inbound: inbound.unwrap_or_else(|| Context::new(suite, &keys.remote)),
        }
    }

    pub(super) fn protect(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        self.outbound.protect(buffer, len)
    }

    pub(super) fn protect_rtcp(
        &mut self,
        buffer: &mut [u8],
        len: usize,
    ) -> Result<usize, SrtpError> {
        self.outbound.protect_rtcp(buffer, len)
    }

    pub(super) fn unprotect(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        self.inbound.unprotect(buffer, len)
    }

    pub(super) fn unprotect_rtcp(
        &mut self,
        buffer: &mut [u8],
        len: usize,
    ) -> Result<usize, SrtpError> {
        self.inbound.unprotect_rtcp(buffer, len)
    }
}
