//! The word that the server is draining, which every connection hears once.

use std::{fmt, pin::Pin, task::Context};

use tokio::{sync::watch, task::unconstrained};

/// The one who gives the word, and the ears for it.
pub(super) fn signal() -> (Begin, Drain) {
    let (sender, receiver) = watch::channel(());
    (Begin { sender }, Drain::new(receiver))
}

/// Gives the word.
#[derive(Debug)]
pub(super) struct Begin {
    sender: watch::Sender<()>,
}

impl Begin {
    /// The server is draining from now on.
    pub(super) fn now(&self) {
        self.sender.send_replace(());
    }
}

/// Hears the word. Listening costs one atomic load once the task's waker is registered.
pub(super) struct Drain {
    signal: watch::Receiver<()>,
    /// Wakes the connection's task; `None` until its waker is registered.
    wake: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Drain {
    fn new(signal: watch::Receiver<()>) -> Self {
        Self { signal, wake: None }
    }

    /// Whether the server is draining; if not, the task will be woken when it is. To be called by one task only.
    pub(super) fn has_begun(&mut self, cx: &mut Context<'_>) -> bool {
        if self.wake.is_none() {
            let mut signal = self.signal.clone();
            let wake = self.wake.insert(Box::pin(async move {
                // An error says that the server is gone, which is the same to a connection.
                let _ = signal.changed().await;
            }));
            // Outside the task's budget, which would make it forget the waker. What it answers is asked below.
            let _ = Pin::new(&mut unconstrained(wake.as_mut())).poll(cx);
        }
        self.signal.has_changed().unwrap_or(true)
    }
}

impl Clone for Drain {
    fn clone(&self) -> Self {
        Self::new(self.signal.clone())
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("begun", &self.signal.has_changed().unwrap_or(true)).finish_non_exhaustive()
    }
}
