//! Memory that a resident no longer needs.
#![allow(unsafe_code)]

/// Gives the memory that earlier runs freed back to the kernel. The allocator keeps that, in several places:
/// each thread that writes a receipt or closes a socket has one of its own.
pub(crate) fn give_back() {
    // SAFETY: it touches only memory that is free already, and may be called at any time (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0)
    };
}
