//! From what is known of a run to a screen.

use super::super::pace::clock;
use super::state::{Gates, State};
use crate::metrics::memory::{BINS_PER_DOUBLING, filled};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph};

const TRAIN: Color = Color::Cyan;
const VALID: Color = Color::Yellow;
/// Heights of a bar, lowest first.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let [top, middle, bottom, keys] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let [curve, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(34)]).areas(middle);
    let [figures, gates] =
        Layout::vertical([Constraint::Length(8), Constraint::Fill(1)]).areas(right);
    let [sample, log] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(bottom);
    progress(frame, top, state);
    losses(frame, curve, state);
    numbers(frame, figures, state);
    memory(frame, gates, state);
    text(frame, sample, state);
    lines(frame, log, state);
    let help = if state.stopping {
        " finishing this step and writing a checkpoint; Ctrl-C stops at once ".bold()
    } else {
        " q or Ctrl-C: stop after this step, with a checkpoint ".dim()
    };
    frame.render_widget(Line::from(help), keys);
}

fn progress(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let ratio = state.step as f64 / state.steps.max(1) as f64;
    let left = state.pace.seconds_left().map(|s| format!(", {} left", clock(s)));
    let gauge = Gauge::default()
        .block(Block::bordered().title(format!(" {} ", state.title)))
        .gauge_style(Style::new().fg(TRAIN))
        .ratio(ratio.clamp(0.0, 1.0))
        .label(format!("step {} of {}{}", state.step, state.steps, left.unwrap_or_default()));
    frame.render_widget(gauge, area);
}

fn losses(frame: &mut Frame<'_>, area: Rect, state: &State) {
    // The fall of the first steps would press the rest flat.
    let settled = state.train.iter().skip(state.train.len() / 25).chain(&state.valid);
    let (low, high) = settled.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, bpc)| {
        (low.min(*bpc), high.max(*bpc))
    });
    let block = Block::bordered().title(" bits per character ");
    if low > high {
        return frame.render_widget(Paragraph::new("no record yet").dim().block(block), area);
    }
    let margin = ((high - low) * 0.08).max(0.05);
    let (low, high) = ((low - margin).max(0.0), high + margin);
    let last = state.train.iter().chain(&state.valid).map(|point| point.0).fold(1.0, f64::max);
    let line = |name: &'static str, color, points| {
        Dataset::default()
            .name(name)
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Style::new().fg(color))
            .data(points)
    };
    // A single point has no line.
    let dots = |points| {
        Dataset::default()
            .marker(Marker::Dot)
            .graph_type(GraphType::Scatter)
            .style(Style::new().fg(VALID))
            .data(points)
    };
    let sets = vec![
        line("training", TRAIN, &state.train),
        line("validation", VALID, &state.valid),
        dots(&state.valid),
    ];
    let middle = f64::midpoint(low, high);
    let chart = Chart::new(sets)
        .block(block)
        .x_axis(
            Axis::default()
                .bounds([0.0, last])
                .labels(["0".to_owned(), format!("step {last:.0}")])
                .style(Style::new().dim()),
        )
        .y_axis(
            Axis::default()
                .bounds([low, high])
                .labels([low, middle, high].map(|bpc| format!("{bpc:.2}")))
                .style(Style::new().dim()),
        );
    frame.render_widget(chart, area);
}

fn numbers(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let shown = |value: Option<f64>, show: fn(f64) -> String| value.map_or("-".to_owned(), show);
    let bpc = |points: &[(f64, f64)]| points.last().map(|point| point.1);
    let best = state.valid.iter().map(|point| point.1).reduce(f64::min);
    let of_record = state.tokens_per_s.or(state.pace.tokens_per_s());
    let rows = [
        ("training, bpc", shown(bpc(&state.train), |x| format!("{x:.4}"))),
        ("validation, bpc", shown(bpc(&state.valid), |x| format!("{x:.4}"))),
        ("best, bpc", shown(best, |x| format!("{x:.4}"))),
        ("learning rate", shown(state.lr, |x| format!("{x:.2e}"))),
        ("tokens/s", shown(of_record, |x| format!("{x:.0}"))),
        ("peak memory", shown(state.memory_bytes, |x| format!("{:.0} MiB", x / 1_048_576.0))),
    ];
    let rows: Vec<Line<'_>> =
        rows.iter().map(|(name, value)| Line::from(format!("{name:<16}{value:>14}"))).collect();
    frame.render_widget(Paragraph::new(rows).block(Block::bordered()), area);
}

fn memory(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let block = Block::bordered().title(" gates: memory, tokens (median) ");
    let rows: Vec<Line<'_>> = state.gates.iter().map(|gates| Line::from(row(gates))).collect();
    frame.render_widget(Paragraph::new(rows).block(block), area);
}

/// The layer, its median and a bar for each doubling of the memory.
fn row(gates: &Gates) -> String {
    let doublings: Vec<u64> =
        gates.counts.chunks(BINS_PER_DOUBLING).map(|bins| bins.iter().sum()).collect();
    let most = doublings.iter().copied().max().unwrap_or(0).max(1);
    let end = filled(&doublings).map_or(0, |(_, end)| end);
    // What is there at all is seen.
    let height = |count: u64| (count * (BARS.len() as u64 - 1)).div_ceil(most) as usize;
    let bars: String = doublings[..end].iter().map(|&count| BARS[height(count)]).collect();
    let layer = gates.layer.trim_start_matches("layers.");
    format!("{layer:<9}{:>7.1} {bars}", gates.median)
}

fn text(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let (title, text) = match &state.sample {
        Some((step, text)) => (format!(" sample at step {step} "), text.as_str()),
        None => (" sample ".to_owned(), ""),
    };
    // Its end is what the model wrote; its beginning is the prompt.
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let rows = rows_of(text, width.saturating_sub(2));
    let skipped = rows.len().saturating_sub(height.saturating_sub(2));
    let end: Vec<Line<'_>> = rows.into_iter().skip(skipped).map(Line::from).collect();
    frame.render_widget(Paragraph::new(end).block(Block::bordered().title(title)), area);
}

/// Lines of at most so many characters.
fn rows_of(text: &str, width: usize) -> Vec<String> {
    let broken = |line: &str| -> Vec<String> {
        let characters: Vec<char> = line.chars().collect();
        if characters.is_empty() {
            return vec![String::new()];
        }
        characters.chunks(width.max(1)).map(|row| row.iter().collect()).collect()
    };
    text.lines().flat_map(broken).collect()
}

fn lines(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let height = usize::from(area.height.saturating_sub(2));
    let newest = state.log.iter().skip(state.log.len().saturating_sub(height));
    let rows: Vec<Line<'_>> = newest.map(|line| Line::from(line.as_str())).collect();
    frame.render_widget(Paragraph::new(rows).block(Block::bordered().title(" log ")), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Record;
    use crate::metrics::memory::BINS;
    use crate::train::Tick;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// The rows of a screen of a size.
    fn screen(state: &State, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        let cells = terminal.backend().buffer().content().chunks(usize::from(width));
        cells.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect()).collect()
    }

    fn holds(screen: &[String], parts: &[&str]) {
        for part in parts {
            assert!(screen.iter().any(|row| row.contains(part)), "no {part} in {screen:#?}");
        }
    }

    fn running() -> State {
        let mut state = State { title: "runs/first".to_owned(), ..State::default() };
        state.tick(&Tick { step: 30, steps: 120, loss: 2.0, bpc: 3.0, tokens: 64 });
        for step in 1..=30_u64 {
            let mut record = Record::new(step, 0.0)
                .with("train/loss", 1.0 + 2.0 / step as f64)
                .with("lr", 1e-3)
                .with("tokens_per_s", 4096.0)
                .with("memory_bytes", 300.0 * 1_048_576.0);
            if step % 10 == 0 {
                record = record.with("valid/bpc", 2.5 - 0.01 * step as f64);
            }
            state.record(&record);
        }
        state
    }

    #[test]
    fn everything_of_a_run_is_on_the_screen() {
        let mut state = running();
        let mut counts = vec![0; BINS];
        (counts[2], counts[6]) = (1, 800);
        let gates = Record::new(30, 0.0)
            .with_counts("gates/layers.0.mixer/log2_memory", counts)
            .with("gates/layers.0.mixer/p50", 9.5);
        state.record(&gates);
        state.sample(20, "The cat sat");
        state.say("resumed at step 3\u{1b}[2J");
        let screen = screen(&state, 100, 30);
        holds(
            &screen,
            &[
                "runs/first",
                "step 30 of 120",
                "bits per character",
                "validation, bpc         2.2000",
                "1.00e-3",
                "4096",
                "300 MiB",
                "0.mixer      9.5  ▁ █",
                "sample at step 20",
                "The cat sat",
                "resumed at step 3 [2J",
                "q or Ctrl-C",
            ],
        );
        // The curve itself.
        assert!(
            screen
                .iter()
                .flat_map(|row| row.chars())
                .any(|c| ('\u{2801}'..='\u{28ff}').contains(&c))
        );
    }

    #[test]
    fn a_run_that_is_asked_to_stop_says_so() {
        let state = State { stopping: true, ..running() };
        holds(&screen(&state, 90, 24), &["writing a checkpoint; Ctrl-C stops at once"]);
    }

    #[test]
    fn a_run_that_has_just_begun_and_any_size_of_screen_can_be_drawn() {
        holds(&screen(&State::default(), 80, 24), &["no record yet", "step 0 of 0"]);
        for (width, height) in [(1, 1), (20, 5), (40, 12), (300, 100)] {
            assert_eq!(screen(&running(), width, height).len(), usize::from(height));
        }
    }

    #[test]
    fn the_newest_of_a_long_log_and_the_end_of_a_long_sample_are_shown() {
        let mut state = running();
        (0..2000).for_each(|n| state.say(&format!("line {n}")));
        state.sample(30, &format!("{}{}the end", "prompt ".repeat(900), "\n".repeat(40)));
        assert_eq!(state.log.len(), 1000);
        holds(&screen(&state, 100, 30), &["line 1999", "the end"]);
        assert_eq!(rows_of("abcde\n\nf", 2), ["ab", "cd", "e", "", "f"]);
    }
}
