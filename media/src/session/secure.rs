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
    /// The first contexts of a leg.
    pub(super) fn new(keys: &SrtpKeys) -> Self {
        Self {
            suite: keys.suite,
            local_epoch: keys.local_epoch,
            remote_epoch: keys.remote_epoch,
            outbound: Context::new(keys.suite, &keys.local),
            inbound: Context::new(keys.suite, &keys.remote),
        }
    }

    /// The contexts for `keys`, keeping those whose key has not changed: their rollover counters and
    /// replay windows go on. A new key starts both anew (RFC 3711 §3.3.1). While the peer `stays`
    /// at its address, what it sent under its old key and is still on its way is heard too; somebody
    /// who has taken its place has nothing to do with the old key.
    pub(super) fn renew(self, keys: &SrtpKeys, stays: bool) -> Self {
        let mut renewed = Self::new(keys);
        let same_suite = self.suite == keys.suite;
        if same_suite && self.local_epoch == keys.local_epoch {
            renewed.outbound = self.outbound;
        }
        if same_suite && self.remote_epoch == keys.remote_epoch {
            renewed.inbound = self.inbound;
        } else if stays {
            renewed.inbound = renewed.inbound.replacing(self.inbound);
        }
        renewed
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
