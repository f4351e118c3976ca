//! An allocator that counts what the calling thread takes from it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system allocator with a counter per thread.
pub(crate) struct Counting;

thread_local! {
    // Const-initialised and without a destructor, so that touching it allocates nothing.
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// Allocations of this thread so far, growing an allocation counted as one.
pub(crate) fn allocations() -> u64 {
    TAKEN.get()
}

fn count() {
    TAKEN.set(TAKEN.get() + 1);
}

#[expect(unsafe_code, reason = "an allocator can only be written this way; it forwards every call")]
// SAFETY: every method hands its arguments to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
