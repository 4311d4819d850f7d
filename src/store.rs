//! The way to the store: an HTTP call for each batch, or a message on a link that stays open.

use std::cell::RefCell;

use weir_core::batch::CallId;
use weir_core::config::{StoreConfig, Transport};
use weir_core::links::{Answer, LinkId, Links};
use weir_core::units::Micros;

use crate::host::{self, NotDone};

pub struct Store {
    pub config: StoreConfig,
    /// Nothing where each call is an HTTP request, which the proxy keeps.
    links: Option<RefCell<Links>>,
}

impl Store {
    pub fn new(config: StoreConfig) -> Store {
        let links = || RefCell::new(Links::new(config.timeout));
        Store {
            links: (config.transport == Transport::Stream).then(links),
            config,
        }
    }

    /// Sends commands that will have this many replies. What comes of it comes to the context that is
    /// active now, so this is for root contexts only: a stream may end before.
    pub fn call(&self, now: Micros, replies: usize, body: &[u8]) -> Result<CallId, NotDone> {
        let Some(links) = &self.links else {
            return host::post(&self.config, &replies.to_string(), body);
        };
        let idle = links.borrow().idle();
        let link = match idle {
            Some(link) => link,
            None => {
                let link = host::open_link(&self.config.cluster)?;
                links.borrow_mut().opened(link);
                link
            }
        };
        if let Err(not_done) = host::send(link, body) {
            self.closed(link);
            return Err(not_done);
        }
        Ok(links.borrow_mut().sent(now, link, replies))
    }

    /// A message is being handed over; the answer, if it completes one.
    pub fn received(&self, link: LinkId, size: usize) -> Option<Answer> {
        let mut links = self.links.as_ref()?.borrow_mut();
        let answer = links.received(link, host::received(size));
        close_broken(&mut links);
        answer
    }

    /// A link carries nothing any more; the call that had no answer.
    pub fn closed(&self, link: LinkId) -> Option<CallId> {
        // The proxy knows a stream until it is ended from this side too.
        host::close_link(link);
        self.links.as_ref()?.borrow_mut().closed(link)
    }

    /// Whoever waited for the answer that was [`Store::received`] last has been told.
    pub fn rested(&self) {
        if let Some(links) = &self.links {
            links.borrow_mut().rested();
        }
    }

    /// A call that had no answer in time; to be asked until there is none.
    pub fn late(&self, now: Micros) -> Option<CallId> {
        let mut links = self.links.as_ref()?.borrow_mut();
        let call = links.late(now);
        close_broken(&mut links);
        call
    }

    /// When the next call will be late.
    pub fn next_late(&self) -> Option<Micros> {
        self.links.as_ref()?.borrow().next_late()
    }
}

fn close_broken(links: &mut Links) {
    while let Some(link) = links.broken() {
        host::close_link(link);
    }
}
