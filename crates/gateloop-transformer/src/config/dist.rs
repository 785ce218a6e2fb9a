//! `[dist]`: how several processes train together.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::check::{check, positive};

/// What the ranks of a run do; without other ranks it is without effect. How many there are is said by whoever starts
/// them, in environment variables (docs/distributed.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistConfig {
    /// Ranks that share every sequence, each of them a part of its tokens; a divisor of the number of ranks. The others
    /// learn from other sequences.
    pub sequence_ranks: usize,
    /// Whether each rank keeps only its share of the optimiser's moments.
    pub shard_optimizer: bool,
    /// Seconds that an operation may wait for the other ranks; longer than whatever one rank does alone.
    pub timeout_s: u64,
    /// Steps between comparisons of the ranks' parameters; 0 is none.
    pub check_every: u64,
    /// Mebibytes of gradients that are sent at once.
    pub bucket_mb: usize,
    /// `"auto"` (NCCL between GPUs, if the program has it, else Gloo), `"gloo"` or `"nccl"`.
    pub backend: String,
}

impl Default for DistConfig {
    fn default() -> Self {
        Self {
            sequence_ranks: 1,
            shard_optimizer: false,
            timeout_s: 600,
            check_every: 100,
            bucket_mb: 32,
            backend: "auto".to_owned(),
        }
    }
}

impl DistConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive("dist.sequence_ranks", self.sequence_ranks)?;
        let timeout = (1..=604_800).contains(&self.timeout_s);
        check(timeout, "dist.timeout_s", self.timeout_s, "1 to 604800 (a week)")?;
        let count = i64::try_from(self.check_every).is_ok();
        check(count, "dist.check_every", self.check_every, "0 to 2^63 - 1")?;
        let bucket = (1..=65_536).contains(&self.bucket_mb);
        check(bucket, "dist.bucket_mb", self.bucket_mb, "1 to 65536")?;
        let backend = self.backend.as_str();
        let known = matches!(backend, "auto" | "gloo" | "nccl");
        check(known, "dist.backend", backend, "auto, gloo or nccl")
    }
}
