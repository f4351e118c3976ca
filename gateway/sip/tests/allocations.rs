//! Reading an ordinary message takes nothing from the heap: what arrived is indexed where it lies.

#![expect(unsafe_code, reason = "an allocator that counts is unsafe by its signature")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use sip::{HeaderName, Malformed, Message, NameAddr, Request, Via};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

fn invite(extra_lines: usize) -> Bytes {
    let extra = "X-Extra: \"a, b\"; c\r\n".repeat(extra_lines);
    Bytes::from(format!(
        "INVITE sip:+15550100@[2001:db8::1]:5060;user=phone SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bKa, SIP/2.0/TCP h;branch=z9hG4bKb\r\n\
         f: \"A \\\"B\\\"\" <sip:a@h>;tag=1\r\nt:\r\n <sip:b@h>\r\ni: x@h\r\nCSeq: 7 INVITE\r\n\
         m: <sip:a@192.0.2.1>\r\n{extra}l: 3\r\n\r\nv=0"
    ))
}

#[test]
fn reading_an_ordinary_request_allocates_nothing() {
    let bytes = invite(33);
    let count = allocations(|| {
        let request = Request::try_from(Message::parse(bytes.clone()).unwrap()).unwrap();
        assert_eq!(request.vias().filter_map(|via| via.unique_branch()).count(), 2);
        assert_eq!(request.from().tag(), Some(&b"1"[..]));
        assert_eq!(request.contact().unwrap().uri.user(), Some(&b"a"[..]));
        assert!(
            request.uri().host().is_some() && request.values(HeaderName::Supported).count() == 0
        );
    });
    assert_eq!(count, 0);
}

#[test]
fn a_message_of_many_lines_takes_one_block_however_many() {
    for extra in [34, 121] {
        let bytes = invite(extra);
        assert_eq!(allocations(|| drop(Message::parse(bytes.clone()))), 1, "{extra} extra lines");
    }
}

#[test]
fn refusing_costs_no_more_than_reading() {
    let bad = invite(0).slice(..100);
    let long = Bytes::from(vec![b'a'; 70_000]);
    let count = allocations(|| {
        assert_eq!(Message::parse(long).err(), Some(Malformed::TooLong));
        assert!(Message::parse(bad).is_ok_and(|message| message.fault().is_some()));
        assert!(Via::parse(b"SIP/2.0/UDP h;;").is_none() && NameAddr::parse(b"\"").is_none());
    });
    assert_eq!(count, 0);
}
