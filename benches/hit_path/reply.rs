//! Where an answer ends: the least that a client must read of it.

/// What is expected to come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    /// A head with a `Content-Length`, and a body.
    Http,
    /// Redis's, whose answers to one command all have one length here.
    Redis,
}

/// An answer of which a part has come.
#[derive(Default, Debug)]
pub(crate) struct Reply {
    /// What has come of the head, until it is whole.
    head: Vec<u8>,
    /// Bytes of the body that have not come, once the head is whole.
    left: Option<usize>,
}

impl Reply {
    /// How many bytes must still come, where that is known.
    pub(crate) fn left(&self) -> Option<usize> {
        self.left
    }

    /// Takes in what came; what of it belongs to the body. `expected` is the length of the whole body.
    pub(crate) fn take<'a>(&mut self, protocol: Protocol, some: &'a [u8], expected: usize) -> &'a [u8] {
        if self.left.is_none() && protocol == Protocol::Redis {
            self.left = Some(expected);
        }
        let body = match self.left {
            Some(_) => some,
            None => self.read_head(some, expected),
        };
        self.skip(body.len());
        body
    }

    /// Counts bytes that came and were not looked at.
    pub(crate) fn skip(&mut self, bytes: usize) {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(bytes).expect("this holds because no server says more than it announced");
        }
    }

    /// Waits for another answer.
    pub(crate) fn clear(&mut self) {
        self.head.clear();
        self.left = None;
    }

    /// Looks for the end of the head; what follows it.
    fn read_head<'a>(&mut self, some: &'a [u8], expected: usize) -> &'a [u8] {
        let before = self.head.len();
        self.head.extend_from_slice(some);
        let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else { return &[] };
        let head = &self.head[..end];
        let complete = head.starts_with(b"HTTP/1.1 200") && length(head) == Some(expected);
        assert!(complete, "{expected} bytes were expected: {}", String::from_utf8_lossy(head));
        self.left = Some(expected);
        &some[end + 4 - before..]
    }
}

/// What the head says of the body's length.
fn length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let line = head
        .split(|&byte| byte == b'\n')
        .find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
}
