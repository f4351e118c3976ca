//! What wakes one pump, and says why: two flags and the pump's own waker.
//!
//! A pump has one thing to sleep on besides its socket. Whoever has something for it raises the flag first and
//! wakes it then; the pump says where it can be woken first and looks at the flags then. So nothing is missed,
//! and neither side ever waits or locks.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// Wakes one pump; any thread may do so, one task may sleep on it.
#[derive(Debug, Default)]
pub struct Wake {
    pump: AtomicWaker,
    audio: AtomicBool,
    orders: AtomicBool,
}

impl Wake {
    /// The media worker has given something to the call's port.
    pub fn audio(&self) {
        self.audio.store(true, Ordering::Release);
        self.pump.wake();
    }

    /// An order was queued, or there will be no more.
    pub(super) fn order(&self) {
        self.orders.store(true, Ordering::Release);
        self.pump.wake();
    }

    /// Here the pump is woken from now on; to be said before looking at what there is.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.pump.register(cx.waker());
    }

    /// Whether there was audio since the last time.
    pub(super) fn take_audio(&self) -> bool {
        self.audio.swap(false, Ordering::Acquire)
    }

    /// Whether there were orders since the last time.
    pub(super) fn take_orders(&self) -> bool {
        self.orders.swap(false, Ordering::Acquire)
    }

    /// Sleeps until there is anything.
    pub(super) async fn rung(&self) {
        poll_fn(|cx| {
            self.register(cx);
            let any = self.audio.load(Ordering::Acquire) || self.orders.load(Ordering::Acquire);
            if any { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn what_came_before_anybody_slept_is_not_missed_and_told_once() {
        let wake = Wake::default();
        assert!(wake.rung().now_or_never().is_none());
        wake.audio();
        assert!(wake.rung().now_or_never().is_some());
        assert!(wake.take_audio() && !wake.take_orders());
        assert!(wake.rung().now_or_never().is_none());
        wake.order();
        assert!(wake.take_orders() && !wake.take_orders());
    }

    #[tokio::test]
    async fn who_sleeps_is_woken() {
        let wake = Arc::new(Wake::default());
        let sleeper = tokio::spawn({
            let wake = Arc::clone(&wake);
            async move { wake.rung().await }
        });
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        wake.order();
        sleeper.await.unwrap();
    }
}
