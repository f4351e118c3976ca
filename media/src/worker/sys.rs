//! The system calls the worker needs and the standard library does not offer (Linux).
//!
//! Every `unsafe` block of the crate is here. Each function owns what it hands to the kernel for the
//! length of the call; nothing borrowed survives it.
//!
//! What is called for every packet goes to the kernel by `syscall(2)`: the C library's own functions are
//! points at which a thread may be cancelled, which costs each call two locked operations.

#![expect(unsafe_code, reason = "system calls that std does not wrap; see each SAFETY comment")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Turns the kernel's −1 into an error.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The result of `syscall(2)`: −1 is an error.
fn check_long(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The size of a small structure, as the socket calls want it.
const fn length_of<T>() -> libc::socklen_t {
    const { assert!(size_of::<T>() <= 1_024) };
    #[expect(clippy::cast_possible_truncation, reason = "asserted above to be small")]
    let length = size_of::<T>() as libc::socklen_t;
    length
}

/// Takes ownership of a descriptor the kernel has just made.
fn own(result: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel returned a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What one wake-up found: at most [`Ready::MAX`] tokens.
pub(crate) struct Ready {
    events: [libc::epoll_event; Ready::MAX],
    count: usize,
}

impl Ready {
    /// Descriptors served per wake-up, so that no flood keeps the tick waiting.
    pub(crate) const MAX: usize = 64;

    pub(crate) fn new() -> Self {
        Self { events: [libc::epoll_event { events: 0, u64: 0 }; Self::MAX], count: 0 }
    }

    /// There may be more than were found.
    pub(crate) fn is_full(&self) -> bool {
        self.count == Self::MAX
    }

    /// What is ready in a place, counted from nought.
    pub(crate) fn token(&self, place: usize) -> Option<u64> {
        self.events.get(..self.count)?.get(place).map(|event| event.u64)
    }

    /// The tokens that are ready.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = u64> + '_ {
        self.events.iter().take(self.count).map(|event| event.u64)
    }
}

/// A level-triggered epoll set.
pub(crate) struct Poller {
    fd: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        Ok(Self { fd: own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })? })
    }

    /// Reports `token` while `fd` is readable.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, token)
    }

    /// Reports `token` once each time that `fd` is written to, whether or not it was read since.
    pub(crate) fn add_edge(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN | libc::EPOLLET, token)
    }

    /// Stops reporting `fd`, but for one error for each call, be it pending or still to come; the kernel
    /// then drops what does not fit its buffer.
    pub(crate) fn mute(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, libc::EPOLLONESHOT, token)
    }

    /// Reports a muted `fd` again.
    pub(crate) fn unmute(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, libc::EPOLLIN, token)
    }

    /// Forgets `fd`. It must be called before a socket moves elsewhere still open.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(&self, how: i32, fd: BorrowedFd<'_>, events: i32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: token };
        // SAFETY: both descriptors are borrowed, hence open; `event` lives through the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), how, fd.as_raw_fd(), &raw mut event) })
            .map(drop)
    }

    /// Sleeps until something is ready. A signal counts as nothing being ready.
    pub(crate) fn wait(&self, ready: &mut Ready) -> io::Result<()> {
        self.wait_ms(ready, -1)
    }

    /// Finds what is ready now, without sleeping.
    pub(crate) fn poll(&self, ready: &mut Ready) -> io::Result<()> {
        self.wait_ms(ready, 0)
    }

    fn wait_ms(&self, ready: &mut Ready, timeout_ms: libc::c_int) -> io::Result<()> {
        let no_mask = std::ptr::null::<libc::sigset_t>();
        ready.count = 0;
        // SAFETY: the array has room for `MAX` events and outlives the call; no signal mask is given.
        let found = check_long(unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait,
                self.fd.as_raw_fd(),
                ready.events.as_mut_ptr(),
                Ready::MAX,
                timeout_ms,
                no_mask,
                0_usize,
            )
        });
        match found {
            Ok(count) => ready.count = count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// A periodic timer on the monotonic clock. Its deadlines are absolute: they never drift.
pub(crate) struct Alarm {
    file: File,
}

impl Alarm {
    /// Rings every `period` from now on.
    pub(crate) fn every(period: Duration) -> io::Result<Self> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: no pointers.
        let fd = own(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        let step = libc::timespec {
            tv_sec: period.as_secs().cast_signed(),
            tv_nsec: i64::from(period.subsec_nanos()),
        };
        let setting = libc::itimerspec { it_interval: step, it_value: step };
        // SAFETY: `setting` lives through the call, the old value is not asked for.
        check(unsafe {
            libc::timerfd_settime(fd.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut())
        })?;
        Ok(Self { file: File::from(fd) })
    }

    /// How many deadlines have passed since the last call.
    pub(crate) fn expirations(&mut self) -> u64 {
        read_counter(&mut self.file)
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A counter that wakes whoever polls it: `eventfd(2)`.
pub(crate) struct Bell {
    file: File,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = own(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
        Ok(Self { file: File::from(fd) })
    }

    /// Wakes the other side. A counter that is full has woken it already.
    pub(crate) fn ring(&self) {
        let _ = (&self.file).write(&1_u64.to_ne_bytes());
    }

    /// Takes note of all rings so far and returns how many there were.
    pub(crate) fn hush(&self) -> u64 {
        read_counter(&mut &self.file)
    }

    /// A second descriptor of the same bell.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn read_counter(file: &mut impl Read) -> u64 {
    let mut count = [0; 8];
    match file.read(&mut count) {
        Ok(8) => u64::from_ne_bytes(count),
        _ => 0,
    }
}

/// One datagram as it came out of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// Bytes in the buffer.
    pub(crate) len: usize,
    /// The datagram was longer than the buffer and is of no use.
    pub(crate) truncated: bool,
    /// Where it says it comes from.
    pub(crate) from: SocketAddr,
    /// When it reached the kernel, as the time since 1970, if that was asked and the kernel says.
    pub(crate) arrived: Option<Duration>,
}

/// Asks the kernel to stamp each datagram of `socket` with the time it arrived.
pub(crate) fn stamp_arrivals(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option value is an int that lives through the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            length_of::<libc::c_int>(),
        )
    })
    .map(drop)
}

/// Room for one time stamp and a little more, aligned as control messages want it.
type Control = [u64; 8];

/// Reads one datagram into `buffer`, or `None` when there is none. When it arrived is not asked, which
/// makes it a third cheaper.
///
/// # Errors
/// What the system reports, for example a pending ICMP error.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    // SAFETY: all-zero is a valid `sockaddr_in6`.
    let mut name: libc::sockaddr_in6 = unsafe { zeroed() };
    let mut name_length = length_of::<libc::sockaddr_in6>();
    // SAFETY: buffer and name outlive the call and have the lengths given. With MSG_TRUNC the result
    // may be more than the buffer's length; no more than that is written.
    let got = unsafe {
        libc::syscall(
            libc::SYS_recvfrom,
            socket.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
            libc::MSG_DONTWAIT | libc::MSG_TRUNC,
            &raw mut name,
            &raw mut name_length,
        )
    };
    let Some(len) = length_received(got)? else { return Ok(None) };
    let from = address(&name).ok_or(io::ErrorKind::InvalidData)?;
    let truncated = len > buffer.len();
    Ok(Some(Received { len: len.min(buffer.len()), truncated, from, arrived: None }))
}

/// Reads one datagram into `buffer`, or `None` when there is none, and when it arrived.
///
/// # Errors
/// What the system reports, for example a pending ICMP error.
pub(crate) fn receive_stamped(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<Option<Received>> {
    // SAFETY: all-zero is a valid `sockaddr_in6`.
    let mut name: libc::sockaddr_in6 = unsafe { zeroed() };
    let mut control: Control = [0; 8];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid `msghdr`: null pointers and zero lengths.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = length_of::<libc::sockaddr_in6>();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>();
    // SAFETY: name, part, buffer and control outlive the call and have the lengths given.
    let got = unsafe {
        let descriptor = socket.as_raw_fd();
        libc::syscall(libc::SYS_recvmsg, descriptor, &raw mut message, libc::MSG_DONTWAIT)
    };
    let Some(len) = length_received(got)? else { return Ok(None) };
    let from = address(&name).ok_or(io::ErrorKind::InvalidData)?;
    let truncated = message.msg_flags & libc::MSG_TRUNC != 0;
    let arrived = arrival(&message);
    Ok(Some(Received { len, truncated, from, arrived }))
}

/// What a receiving call returned; `None` when there was nothing to receive.
fn length_received(got: libc::c_long) -> io::Result<Option<usize>> {
    match check_long(got) {
        Ok(len) => Ok(Some(len)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends one datagram; the kernel takes it now or not at all.
///
/// # Errors
/// What the system reports: no room, no route, a pending ICMP error.
pub(crate) fn send(socket: BorrowedFd<'_>, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
    match to {
        SocketAddr::V4(to) => {
            // SAFETY: all-zero is a valid `sockaddr_in`.
            let mut name: libc::sockaddr_in = unsafe { zeroed() };
            name.sin_family = FAMILY_V4;
            name.sin_port = to.port().to_be();
            name.sin_addr.s_addr = to.ip().to_bits().to_be();
            send_to(socket, &name, datagram)
        }
        SocketAddr::V6(to) => {
            // SAFETY: all-zero is a valid `sockaddr_in6`.
            let mut name: libc::sockaddr_in6 = unsafe { zeroed() };
            name.sin6_family = FAMILY_V6;
            name.sin6_port = to.port().to_be();
            name.sin6_addr.s6_addr = to.ip().octets();
            name.sin6_scope_id = to.scope_id();
            send_to(socket, &name, datagram)
        }
    }
}

/// Sends one datagram to whom the socket is connected to; the kernel takes it now or not at all.
///
/// # Errors
/// What the system reports: no room, no route, a pending ICMP error.
pub(crate) fn send_connected(socket: BorrowedFd<'_>, datagram: &[u8]) -> io::Result<()> {
    send_raw(socket, std::ptr::null::<libc::sockaddr_in>(), 0, datagram)
}

/// Sends to a `sockaddr` of one family or the other.
fn send_to<A>(socket: BorrowedFd<'_>, name: &A, datagram: &[u8]) -> io::Result<()> {
    send_raw(socket, std::ptr::from_ref(name), length_of::<A>(), datagram)
}

/// Sends to the `name` of so many bytes, none if it is null.
fn send_raw<A>(
    socket: BorrowedFd<'_>,
    name: *const A,
    name_length: libc::socklen_t,
    datagram: &[u8],
) -> io::Result<()> {
    // SAFETY: datagram and name outlive the call and have the lengths given, or there is no name; `A` is
    // an address, and of whatever else the kernel would say that it is none.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_sendto,
            socket.as_raw_fd(),
            datagram.as_ptr(),
            datagram.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            name,
            name_length,
        )
    };
    check_long(sent).map(drop)
}

const FAMILY_V4: libc::sa_family_t = 2;
const FAMILY_V6: libc::sa_family_t = 10;
const _: () = assert!(libc::AF_INET == 2 && libc::AF_INET6 == 10);

/// The address the kernel wrote, for the two families we bind; `sockaddr_in6` is the longer of both.
fn address(v6: &libc::sockaddr_in6) -> Option<SocketAddr> {
    match v6.sin6_family {
        FAMILY_V4 => {
            // SAFETY: the family says that there is a `sockaddr_in`, which is shorter and needs no
            // other alignment.
            let v4 = unsafe { &*std::ptr::from_ref(v6).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        FAMILY_V6 => {
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            // Flow labels differ per packet and say nothing about who sent it.
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// When the datagram reached the kernel, as the time since 1970.
fn arrival(message: &libc::msghdr) -> Option<Duration> {
    // SAFETY: `message` was filled by the kernel and its control buffer is still alive.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
        return None;
    }
    // SAFETY: a message of this type carries one `timespec`; the read need not be aligned.
    let stamp = unsafe { libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned() };
    let nanos = u32::try_from(stamp.tv_nsec).ok()?;
    Some(Duration::new(u64::try_from(stamp.tv_sec).ok()?, nanos))
}

/// Asks the processor to fetch the first `bytes` of `value`, which will be wanted in about a
/// microsecond. Nothing happens where there is no such instruction.
#[inline]
pub(crate) fn prefetch<T>(value: &T, bytes: usize) {
    let start = std::ptr::from_ref(value).cast::<i8>();
    for offset in (0..bytes.min(size_of::<T>())).step_by(64) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: within the value; and a prefetch reads nothing and cannot fault.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(start.add(offset));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (start, offset);
    }
}

/// The kernel's number for the calling thread.
pub(crate) fn thread_id() -> libc::pid_t {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::gettid() }
}

/// Puts `thread` into the round-robin real-time class. Threads it starts do not inherit it.
pub(crate) fn make_realtime(thread: libc::pid_t, priority: i32) -> io::Result<()> {
    schedule(thread, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, priority)
}

/// Puts `thread` back into the ordinary class.
pub(crate) fn make_ordinary(thread: libc::pid_t) -> io::Result<()> {
    schedule(thread, libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK, 0)
}

fn schedule(thread: libc::pid_t, policy: i32, priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: `parameters` lives through the call; a wrong thread number is an error, not harm.
    check(unsafe { libc::sched_setscheduler(thread, policy, &raw const parameters) }).map(drop)
}

/// Sets the nice value of `thread`.
pub(crate) fn make_nice(thread: libc::pid_t, nice: i32) -> io::Result<()> {
    // SAFETY: no pointers. On Linux the number of a thread is accepted and means just that thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, thread.cast_unsigned(), nice) }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::clock;

    type Receive = fn(BorrowedFd<'_>, &mut [u8]) -> io::Result<Option<Received>>;
    const BOTH: [Receive; 2] = [receive, receive_stamped];

    #[test]
    fn a_datagram_comes_with_its_source_and_on_demand_with_its_age() {
        for (any, is_stamped) in [("127.0.0.1:0", true), ("[::1]:0", true), ("127.0.0.1:0", false)]
        {
            let Ok(socket) = UdpSocket::bind(any) else { continue };
            stamp_arrivals(socket.as_fd()).unwrap();
            let receive = BOTH[usize::from(is_stamped)];
            let mut buffer = [0; 8];
            assert!(receive(socket.as_fd(), &mut buffer).unwrap().is_none());
            let peer = UdpSocket::bind(any).unwrap();
            send(peer.as_fd(), socket.local_addr().unwrap(), b"hello").unwrap();
            let got = receive(socket.as_fd(), &mut buffer).unwrap().unwrap();
            assert_eq!(&buffer[..got.len], b"hello");
            assert_eq!(got.from, peer.local_addr().unwrap());
            assert!(!got.truncated);
            assert_eq!(got.arrived.is_some(), is_stamped);
            let waited = got.arrived.map(|at| clock::since_1970().saturating_sub(at));
            assert!(waited.is_none_or(|age| age > Duration::ZERO && age < Duration::from_secs(10)));
        }
    }

    #[test]
    fn a_datagram_longer_than_the_buffer_says_so() {
        for receive in BOTH {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.send_to(&[7; 100], socket.local_addr().unwrap()).unwrap();
            let got = receive(socket.as_fd(), &mut [0; 10]).unwrap().unwrap();
            assert!(got.truncated && got.len <= 10);
            assert_eq!(got.arrived, None);
        }
    }

    #[test]
    fn a_datagram_that_cannot_be_sent_is_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let other_family = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 9);
        assert!(send(socket.as_fd(), other_family, b"hello").is_err());
        let too_long = vec![0; 70_000];
        let error = send(socket.as_fd(), socket.local_addr().unwrap(), &too_long).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    }

    #[test]
    fn a_connected_socket_sends_without_an_address() {
        let [socket, peer] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        assert!(send_connected(socket.as_fd(), b"hello").is_err(), "to whom?");
        socket.connect(peer.local_addr().unwrap()).unwrap();
        send_connected(socket.as_fd(), b"hello").unwrap();
        let got = receive(peer.as_fd(), &mut [0; 8]).unwrap().unwrap();
        assert_eq!((got.len, got.from), (5, socket.local_addr().unwrap()));
        drop(peer);
        send_connected(socket.as_fd(), b"hello").unwrap();
        let refused = |_| send_connected(socket.as_fd(), b"hello").err();
        let error = (0..1_000_000).find_map(refused).map(|error| error.kind());
        assert_eq!(error, Some(io::ErrorKind::ConnectionRefused), "what became of one before");
    }

    #[test]
    fn a_muted_socket_tells_an_error_once() {
        let [socket, peer] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        socket.connect(peer.local_addr().unwrap()).unwrap();
        let (poller, mut ready) = (Poller::new().unwrap(), Ready::new());
        poller.add(socket.as_fd(), 7).unwrap();
        peer.send_to(b"hello", socket.local_addr().unwrap()).unwrap();
        drop(peer);
        send_connected(socket.as_fd(), b"hello").unwrap();
        poller.mute(socket.as_fd(), 7).unwrap();
        let mut told = || {
            poller.poll(&mut ready).unwrap();
            ready.tokens().count()
        };
        // That the port is closed is mostly, but not always, known when the call returns.
        assert!((0..1_000_000).any(|_| told() == 1));
        assert_eq!([told(), told()], [0, 0]);
        poller.unmute(socket.as_fd(), 7).unwrap();
        assert_eq!([told(), told()], [1, 1]);
    }

    #[test]
    fn a_bell_wakes_a_poller_until_it_is_hushed() {
        let (poller, bell, mut ready) =
            (Poller::new().unwrap(), Bell::new().unwrap(), Ready::new());
        poller.add(bell.as_fd(), 42).unwrap();
        bell.ring();
        bell.ring();
        poller.wait(&mut ready).unwrap();
        assert_eq!(ready.tokens().collect::<Vec<_>>(), [42]);
        assert_eq!(bell.hush(), 2);
        assert_eq!(bell.hush(), 0);
        poller.poll(&mut ready).unwrap();
        assert_eq!(ready.tokens().count(), 0, "and it does not sleep to find that out");
    }

    #[test]
    fn an_alarm_counts_its_deadlines() {
        let (poller, mut ready) = (Poller::new().unwrap(), Ready::new());
        let mut alarm = Alarm::every(Duration::from_millis(1)).unwrap();
        poller.add(alarm.as_fd(), 1).unwrap();
        poller.wait(&mut ready).unwrap();
        assert!(alarm.expirations() >= 1);
    }

    #[test]
    fn the_calling_thread_may_always_become_ordinary() {
        assert!(make_ordinary(thread_id()).is_ok());
    }
}
