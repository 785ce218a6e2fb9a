//! The learning rate of each step.

use crate::config::{Schedule, TrainConfig};
use std::f64::consts::PI;

/// The learning rate of the update that makes step `step + 1`.
///
/// The warm-up (arXiv 1706.02677) ends at `lr` with its last step; what follows is spread over the steps that are
/// left, so a run whose `train.steps` is raised later goes on at another rate than it stopped with.
pub(super) fn lr(config: &TrainConfig, step: u64) -> f64 {
    let TrainConfig { lr, min_lr, warmup_steps, steps, schedule, .. } = *config;
    if step < warmup_steps {
        return lr * (step + 1) as f64 / warmup_steps as f64;
    }
    let left = steps.saturating_sub(warmup_steps).max(1);
    let done = ((step - warmup_steps) as f64 / left as f64).min(1.0);
    let share = match schedule {
        Schedule::Constant => return lr,
        Schedule::Cosine => f64::midpoint(1.0, (PI * done).cos()),
        Schedule::Linear => 1.0 - done,
    };
    min_lr + (lr - min_lr) * share
}

#[cfg(test)]
mod tests {
    use super::lr;
    use crate::config::{Schedule, TrainConfig};

    fn config(schedule: Schedule) -> TrainConfig {
        let rates = TrainConfig { lr: 1.0, min_lr: 0.2, ..TrainConfig::default() };
        TrainConfig { schedule, warmup_steps: 4, steps: 12, ..rates }
    }

    fn assert_close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() < 1e-12, "{actual} {expected}");
    }

    #[test]
    fn the_warm_up_is_a_straight_line_that_ends_at_the_rate() {
        for schedule in [Schedule::Constant, Schedule::Cosine, Schedule::Linear] {
            let rates: Vec<f64> = (0..5).map(|step| lr(&config(schedule), step)).collect();
            assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0]);
        }
    }

    #[test]
    fn what_follows_has_the_shape_of_its_name() {
        let at = |schedule, step| lr(&config(schedule), step);
        assert_close(at(Schedule::Constant, 11), 1.0);
        assert_close(at(Schedule::Linear, 8), 0.6);
        assert_close(at(Schedule::Linear, 10), 0.4);
        assert_close(at(Schedule::Cosine, 8), 0.6);
        assert_close(at(Schedule::Cosine, 6), 0.2 + 0.8 * 0.5 * (1.0 + 0.5_f64.sqrt()));
        for schedule in [Schedule::Cosine, Schedule::Linear] {
            assert_close(at(schedule, 12), 0.2);
            assert_close(at(schedule, 1000), 0.2);
        }
    }

    #[test]
    fn without_a_warm_up_the_first_step_has_the_full_rate() {
        let config = TrainConfig { warmup_steps: 0, ..config(Schedule::Cosine) };
        assert_close(lr(&config, 0), 1.0);
    }
}
