//! How often a test kills.

use std::env;

/// `usual` times, or as often as `GATELOOP_KILLS` says: more find what is rarer, and take longer.
pub(crate) fn kills(usual: usize) -> usize {
    env::var("GATELOOP_KILLS").map_or(usual, |kills| {
        kills.parse().unwrap_or_else(|_| panic!("GATELOOP_KILLS={kills} is not a number"))
    })
}
