//! Texts that end the writing.

/// Watches for texts that end the writing. Bytes that may be the beginning of one are held back until it is
/// clear whether they are.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<Vec<u8>>,
    held: Vec<u8>,
    is_stopped: bool,
}

impl StopStrings {
    /// Watches for any of these; empty ones are never found.
    pub fn new<S: AsRef<[u8]>>(stops: &[S]) -> Self {
        let stops = stops.iter().map(|stop| stop.as_ref().to_vec());
        Self { stops: stops.filter(|stop| !stop.is_empty()).collect(), ..Self::default() }
    }

    /// Takes a byte; returns those that belong to the text for sure. After a stop there are no more.
    pub fn push(&mut self, byte: u8) -> Vec<u8> {
        if self.is_stopped {
            return Vec::new();
        }
        self.held.push(byte);
        // Of several that end here, the longest: it began first.
        let ended = self.stops.iter().filter(|stop| self.held.ends_with(stop)).map(Vec::len).max();
        if let Some(len) = ended {
            self.is_stopped = true;
            self.held.truncate(self.held.len() - len);
            return std::mem::take(&mut self.held);
        }
        let may_begin = |from: &usize| {
            let end = &self.held[*from..];
            self.stops.iter().any(|stop| stop.starts_with(end))
        };
        let kept = (0..self.held.len()).find(may_begin).unwrap_or(self.held.len());
        self.held.drain(..kept).collect()
    }

    /// Whether one of the texts has come.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// What was held back, where the writing ends without a stop.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::StopStrings;

    /// What is shown after each byte, and whether it stopped.
    fn shown(stops: &[&str], text: &str) -> (Vec<String>, bool) {
        let mut watch = StopStrings::new(stops);
        let mut shown: Vec<Vec<u8>> = text.bytes().map(|byte| watch.push(byte)).collect();
        shown.push(watch.finish());
        let shown = shown.into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect();
        (shown, watch.is_stopped())
    }

    #[test]
    fn the_text_ends_before_a_stop() {
        let (pieces, stopped) = shown(&["\n\n"], "a\nb\n\nc");
        assert!(stopped);
        assert_eq!(pieces, ["a", "", "\nb", "", "", "", ""]);
    }

    #[test]
    fn what_turned_out_to_be_no_stop_comes_late_but_whole() {
        assert_eq!(shown(&["abcd"], "abcabcx").0.concat(), "abcabcx");
        assert_eq!(shown(&["aab"], "aaaab").0.concat(), "aa");
        assert_eq!(shown(&["END"], "the EN").0, ["t", "h", "e", " ", "", "", "EN"]);
    }

    #[test]
    fn of_several_stops_the_first_to_end_counts() {
        assert_eq!(
            shown(&["xyz", "y"], "wxyz"),
            (["w", "", "x", "", ""].map(str::to_owned).into(), true)
        );
        assert_eq!(shown(&["yz", "xyz"], "wxyz").0.concat(), "w");
        assert_eq!(shown(&[], "anything").0.concat(), "anything");
        assert_eq!(shown(&[""], "anything"), (shown(&[], "anything").0, false));
    }
}
