//! The connections that are open, and which of them makes room for a new one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::Notify;

use crate::proxies::Proxies;

/// Connections beyond the limit that are accepted while all others are in use. They serve what tells the server's state and answer
/// everything else with a refusal.
const RESERVED: usize = 16;

/// All open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    limit: usize,
    /// Of an address that is no trusted proxy's.
    limit_per_address: usize,
    proxies: Proxies,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    /// Since when no request is under way; `None` while one is.
    idle_since: Option<Instant>,
    close: Arc<Notify>,
}

/// Who a new connection is, as far as it may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// All requests.
    Fully,
    /// Requests for the server's state.
    ForState,
}

/// One open connection, until this is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    connections: Arc<Connections>,
    id: u64,
    /// Told when this one must make room.
    pub close: Arc<Notify>,
    pub admitted: Admitted,
    pub address: IpAddr,
}

impl Connections {
    pub fn new(limit: usize, limit_per_address: usize, proxies: Proxies) -> Arc<Self> {
        Arc::new(Self { limit, limit_per_address, proxies, open: Mutex::default() })
    }

    /// Takes in a connection from `address`. If there are too many, the one that is idle for longest makes room; `None` if
    /// none can.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> (Option<Connection>, Shed) {
        let mut open = self.open();
        let of_address = open.entries.values().filter(|entry| entry.address == address).count();
        let mut shed = Shed::None;
        if of_address >= self.limit_per_address && !self.proxies.trust(address) {
            if !open.shed(Some(address)) {
                return (None, Shed::New);
            }
            shed = Shed::Idle;
        }
        let mut admitted = Admitted::Fully;
        if open.entries.len() >= self.limit && open.shed(None) {
            shed = Shed::Idle;
        }
        // One of those beyond the limit may have made room, which is none.
        if open.entries.len() >= self.limit {
            if open.entries.len() >= self.limit + RESERVED {
                return (None, Shed::New);
            }
            admitted = Admitted::ForState;
        }
        let (id, close) = (open.next, Arc::new(Notify::new()));
        open.next += 1;
        open.entries
            .insert(id, Entry { address, idle_since: Some(Instant::now()), close: Arc::clone(&close) });
        (Some(Connection { connections: Arc::clone(self), id, close, admitted, address }), shed)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing panics while it is locked.
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn set_idle(&self, id: u64, idle_since: Option<Instant>) {
        if let Some(entry) = self.open().entries.get_mut(&id) {
            entry.idle_since = idle_since;
        }
    }
}

/// Which connection was closed for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shed {
    None,
    Idle,
    New,
}

impl Open {
    /// Closes the connection that is idle for longest, of those from `address` if one is given. Whether there was one.
    fn shed(&mut self, address: Option<IpAddr>) -> bool {
        let idle =
            self.entries.iter().filter(|(_, entry)| address.is_none_or(|address| entry.address == address));
        let idlest = idle.filter_map(|(&id, entry)| Some((entry.idle_since?, id))).min();
        match idlest.and_then(|(_, id)| self.entries.remove(&id)) {
            Some(entry) => {
                entry.close.notify_one();
                true
            }
            None => false,
        }
    }
}

impl Connection {
    /// Marks a request as under way until the value is dropped.
    pub fn in_use(&self) -> InUse {
        self.connections.set_idle(self.id, None);
        InUse { connections: Arc::clone(&self.connections), id: self.id }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.open().entries.remove(&self.id);
    }
}

/// A request that is under way on a connection.
#[derive(Debug)]
pub(crate) struct InUse {
    connections: Arc<Connections>,
    id: u64,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.connections.set_idle(self.id, Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idlest_makes_room() {
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let connections = Connections::new(3, 2, Proxies::default());
        let admit = |address| connections.admit(address);
        let first = admit(a).0.unwrap();
        let second = admit(a).0.unwrap();
        let busy = first.in_use();
        let (third, shed) = admit(a);
        assert_eq!(
            (third.as_ref().unwrap().admitted, shed),
            (Admitted::Fully, Shed::Idle),
            "the second made room"
        );
        let third = third.unwrap();
        drop(second);
        let busy_too = third.in_use();
        assert_eq!(admit(a).1, Shed::New, "both of its connections are in use");
        let fourth = admit(b).0.unwrap();
        let fifth = admit(b);
        assert_eq!((fifth.0.as_ref().unwrap().admitted, fifth.1), (Admitted::Fully, Shed::Idle));
        let used = fifth.0.as_ref().unwrap().in_use();
        drop(fourth);
        let sixth = admit(b).0.unwrap();
        assert_eq!(sixth.admitted, Admitted::ForState, "all three are in use");
        let (seventh, shed) = admit(IpAddr::from([10, 0, 0, 3]));
        let seventh = seventh.unwrap();
        assert_eq!(
            (seventh.admitted, shed),
            (Admitted::ForState, Shed::Idle),
            "the sixth is beyond the limit"
        );
        drop((busy, busy_too, used, fifth, first));
        drop((sixth, seventh));
        assert_eq!(admit(b).0.unwrap().admitted, Admitted::Fully);
    }

    #[test]
    fn a_trusted_proxy_may_have_all_connections() {
        let connections = Connections::new(3, 2, Proxies(vec!["10.0.0.1".parse().unwrap()]));
        let admit = |address: [u8; 4]| connections.admit(IpAddr::from(address)).0;
        let held = [(); 3].map(|()| admit([10, 0, 0, 1]).unwrap());
        let _in_use = held.each_ref().map(Connection::in_use);
        assert_eq!(connections.open().entries.len(), 3);
    }
}
