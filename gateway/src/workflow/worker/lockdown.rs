//! How a worker gives up what it does not need, for good.
//!
//! Three fences, one behind the other: limits on resources (no descriptors beyond those it has, no
//! files, no core dumps, so much address space, so much processor time), a filter that refuses every
//! system call but those for memory, time and the two pipes (seccomp, `no_new_privs`), and a lower
//! priority than anything that carries a call. A worker that cannot be confined computes nothing.

#![expect(unsafe_code, reason = "system calls that std does not wrap; see each SAFETY comment")]

use std::io;
use std::time::Duration;

/// How much nicer than calls a worker is.
const NICENESS: libc::c_int = 10;

/// Processor time beyond what a task may take, in seconds: the gateway should have ended it long before.
const CPU_GRACE_SECONDS: u64 = 2;

/// The calls that go through; any other fails with EPERM.
const ALLOWED: [libc::c_long; 28] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity, // asked together with the bounds of a thread's stack
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_prlimit64,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
];

/// The architecture whose call numbers those are, as the kernel names it (`AUDIT_ARCH_…`).
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: u32 = 0;

/// Confines the process. `memory_bytes` is what it may take beyond what it has.
pub(super) fn confine(memory_bytes: u64) -> io::Result<()> {
    let space = address_space()?.saturating_add(memory_bytes);
    // SAFETY: no pointers are passed.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) })?;
    // SAFETY: no pointers are passed; nothing of this process owns a descriptor from 3 on.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) })?;
    for (resource, most) in [
        (libc::RLIMIT_AS, space),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_NPROC, 0),
        (libc::RLIMIT_NOFILE, 0),
    ] {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: `limit` outlives the call, which only reads it.
        check(unsafe { libc::setrlimit(resource, &raw const limit) })?;
    }
    // SAFETY: no pointers are passed.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    filter()
}

/// Lets the next task compute for so long; then the kernel ends the process.
pub(super) fn allow_cpu(time: Duration) {
    // SAFETY: all-zero is a valid `rusage`: it holds only numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` outlives the call, which writes it.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } != 0 {
        return;
    }
    let used = usage.ru_utime.tv_sec.saturating_add(usage.ru_stime.tv_sec);
    let used = u64::try_from(used).unwrap_or(0);
    let most = used.saturating_add(time.as_secs()).saturating_add(CPU_GRACE_SECONDS);
    let limit = libc::rlimit { rlim_cur: most, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` outlives the call, which only reads it.
    let _ = unsafe { libc::setrlimit(libc::RLIMIT_CPU, &raw const limit) };
}

/// What is mapped already, in bytes: the program itself, libraries, stacks.
fn address_space() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages = text.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
    // SAFETY: no pointers are passed.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) });
    let pages = pages.ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages.saturating_mul(page.map_err(|_| io::ErrorKind::InvalidData)?))
}

/// Puts the filter in place for all threads: classic BPF over `struct seccomp_data`, whose first word
/// is the number of the call and whose second the architecture.
fn filter() -> io::Result<()> {
    let mut program = program()?;
    let length = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let whole = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: `whole` and the program it points to outlive the call, which only reads them.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const whole,
        )
    })
}

fn program() -> io::Result<Vec<libc::sock_filter>> {
    if ARCHITECTURE == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let load = word(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS)?;
    let same = word(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K)?;
    let give = word(libc::BPF_RET | libc::BPF_K)?;
    let line = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let refuse = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap_or(1);
    let mut program = vec![
        line(load, 4, 0, 0),
        line(same, ARCHITECTURE, 1, 0),
        line(give, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        line(load, 0, 0, 0),
    ];
    for call in ALLOWED {
        let call = u32::try_from(call).map_err(io::Error::other)?;
        program.push(line(same, call, 0, 1));
        program.push(line(give, libc::SECCOMP_RET_ALLOW, 0, 0));
    }
    program.push(line(give, refuse, 0, 0));
    Ok(program)
}

fn word(bits: u32) -> io::Result<u16> {
    u16::try_from(bits).map_err(io::Error::other)
}

fn check<T: PartialEq + From<i8>>(result: T) -> io::Result<()> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(()) }
}
