//! How much memory the program has, and how long it keeps it.

use std::ffi::c_long;
use std::fs;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

/// `mi_option_purge_delay` of `mimalloc.h`: milliseconds until freed memory goes back to the system. The binding has no name for it.
const PURGE_DELAY: mi_option_t = 15;

/// Ten seconds, in which a step of a training or a layer of a merge is over.
const KEPT: c_long = 10_000;

/// Has the allocator keep freed memory for a while, unless the variable `MIMALLOC_PURGE_DELAY` says how long.
///
/// Steps free memory and soon want it again. With the delay of one second that mimalloc has by itself, some of it goes back in between, and the system clears it
/// anew: that was a seventh of the processor's time of a training of the miniature.
///
/// For the beginning of the program: it must be alone.
pub fn keep_freed() {
    #[allow(unsafe_code, reason = "the allocator's options have no safe interface")]
    // SAFETY: a number that mimalloc knows is set, and no other thread reads or sets one at the same time.
    unsafe {
        mi_option_set_default(PURGE_DELAY, KEPT);
    }
}

/// Bytes of memory that are the program's now, where the system tells it as Linux does; mapped files that were read count, too.
pub fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: u64 = line?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_that_of_the_delay() {
        #[allow(unsafe_code, reason = "as in `keep_freed`")]
        // SAFETY: nothing else in the tests looks at options.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        let before = delay();
        keep_freed();
        // mimalloc's own, or that of the variable, which goes before.
        assert!(
            before == 1000 && delay() == KEPT || before == delay(),
            "{before}, {}",
            delay()
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_in_use_shows() {
        let block = vec![1_u8; 64 << 20];
        let bytes = resident().unwrap();
        assert!(bytes >= 64 << 20, "{bytes}");
        assert_eq!(block.last(), Some(&1));
    }
}
