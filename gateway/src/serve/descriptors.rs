//! Open files: how many the program may have, and how many of them can be spared.

use std::io;

use config::settings::Settings;

/// Connections to carriers, of which there are 1,024 at most; and those of the API's clients, the store's,
/// workflows' pipes, listeners, logs.
const OTHERS: u64 = 1_024 + 512;

/// Raises the soft limit of open files to the hard one (`setrlimit(2)`) and returns what holds then. The
/// soft one is for programs that use `select(2)`, which this one does not.
#[expect(unsafe_code, reason = "a system call that the standard library does not wrap")]
pub(super) fn raise_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writing through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `raised` is valid for reading through the call. Where it is refused the old limit holds.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) };
    Ok(if done == 0 { raised.rlim_cur } else { limit.rlim_cur })
}

/// How many of `limit` open files may go to sockets that only make media cheaper: what is left when all
/// that the settings allow is open at the same time, and an eighth in any case, as it hardly ever is.
pub(super) fn spare(settings: &Settings, limit: u64) -> u64 {
    let media = &settings.media;
    let ports = u64::from(media.ports.end() - media.ports.start()) + 1;
    let calls = u64::from(settings.sip.max_calls);
    let needed = ports * media.bind.len() as u64
        + u64::from(settings.sip.max_connections)
        + calls // agent links
        + OTHERS;
    if limit < needed {
        tracing::warn!(
            limit,
            needed,
            "the settings allow more open files than the system (LimitNOFILE)"
        );
    }
    limit.saturating_sub(needed).max(limit / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_settings_allow_is_spared_but_for_an_eighth() {
        let mut settings = Settings::default();
        let needed = 10_000 + 4_000 + 2_000 + OTHERS;
        assert_eq!(spare(&settings, 3 * needed), 2 * needed);
        settings.media.bind.push(std::net::Ipv6Addr::LOCALHOST.into());
        assert_eq!(spare(&settings, 3 * needed), 2 * needed - 10_000);
        assert_eq!(spare(&settings, needed), needed / 8, "an eighth in any case");
    }

    #[test]
    fn the_limit_is_what_the_system_permits() {
        let limit = raise_limit().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[3..5], [limit.to_string(), limit.to_string()], "soft and hard");
    }
}
