//! On what, with what and when a run was made.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::workspace::Workspace;

/// What a figure depends on besides the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The name that the processor gives itself.
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    /// The vector instructions that matter here.
    pub(crate) vectors: String,
    pub(crate) memory: String,
    pub(crate) kernel: String,
    /// `2026-11-25`, UTC
    pub(crate) date: String,
    pub(crate) revision: String,
    /// Compilers, libraries and their flags.
    pub(crate) versions: Vec<(String, String)>,
}

impl Machine {
    pub(crate) fn look(workspace: &Workspace, compiler: &str) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let versions = vec![
            ("rustc".to_owned(), words(Command::new("rustc").arg("--version"))),
            ("C++ compiler".to_owned(), compiler.to_owned()),
            ("flags".to_owned(), flags()),
        ];
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            vectors: vectors(&field(&cpuinfo, "flags").unwrap_or_default()),
            memory: field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            date: date(SystemTime::now()),
            revision: revision(workspace),
            versions,
        }
    }

    /// A folder's name: the processor and its cores, and nothing of whose machine it is.
    pub(crate) fn slug(&self) -> String {
        let mut slug = String::new();
        for letter in self.cpu.to_lowercase().replace("(r)", "").replace("(tm)", "").chars() {
            match letter {
                letter if letter.is_ascii_alphanumeric() => slug.push(letter),
                _ if slug.ends_with('-') => {}
                _ => slug.push('-'),
            }
        }
        format!("{}-{}-cores", slug.trim_matches('-'), self.cores)
    }

    /// Name and value of everything, for a header.
    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        let own = [
            (
                "machine",
                format!(
                    "{}, {} cores, {}, {} memory",
                    self.cpu, self.cores, self.vectors, self.memory
                ),
            ),
            ("kernel", self.kernel.clone()),
            ("date", self.date.clone()),
            ("revision", self.revision.clone()),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        own.chain(self.versions.clone()).collect()
    }
}

/// The value of `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn vectors(flags: &str) -> String {
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    let known = ["avx512f", "avx2", "avx", "asimd"];
    known.into_iter().find(|name| has(name)).unwrap_or("no known vectors").to_owned()
}

fn flags() -> String {
    let given = std::env::var("RUSTFLAGS").unwrap_or_default();
    if given.is_empty() { "release profile, no RUSTFLAGS".to_owned() } else { given }
}

fn revision(workspace: &Workspace) -> String {
    let git = |arguments: &[&str]| {
        words(Command::new("git").args(arguments).current_dir(workspace.root()))
    };
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        head if head.is_empty() => "unknown".to_owned(),
        head if git(&["status", "--porcelain", "--untracked-files=no"]).is_empty() => head,
        head => format!("{head} with changes"),
    }
}

/// The first line that a command prints; nothing where it fails.
fn words(command: &mut Command) -> String {
    match command.output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            text.lines().next().unwrap_or_default().trim().to_owned()
        }
        _ => String::new(),
    }
}

fn date(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    civil((seconds / 86_400) as i64)
}

/// The date of a day after 1970-01-01, by Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn civil(days: i64) -> String {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine that does not exist.
    pub(crate) fn invented() -> Machine {
        Machine {
            cpu: "Some(R) CPU-7 @ 2.0GHz".to_owned(),
            cores: 2,
            vectors: "avx2".to_owned(),
            memory: "1 kB".to_owned(),
            kernel: "6".to_owned(),
            date: "2026-01-02".to_owned(),
            revision: "abc".to_owned(),
            versions: vec![("rustc".to_owned(), "1".to_owned())],
        }
    }

    #[test]
    fn dates_are_civil() {
        assert_eq!(civil(0), "1970-01-01");
        assert_eq!(civil(11_016), "2000-02-29");
        assert_eq!(civil(20_820), "2027-01-02");
    }

    #[test]
    fn the_slug_is_a_folder_name() {
        assert_eq!(invented().slug(), "some-cpu-7-2-0ghz-2-cores");
    }

    #[test]
    fn fields_are_found_by_their_names() {
        let text = "processor : 0\nmodel name\t: X Y\nflags\t\t: sse avx avx2\n";
        assert_eq!(field(text, "model name").unwrap(), "X Y");
        assert_eq!(vectors(&field(text, "flags").unwrap()), "avx2");
        assert_eq!(field(text, "model"), None);
    }
}
