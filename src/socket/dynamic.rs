//! The dynamic namespaces that are in use here, and no more at a time than there may be: clients choose their names, and with Redis each
//! makes every message of every instance dearer, since Redis compares it with the patterns of all.
//!
//! In use is one that a client is in, asks to be in, is away from and may come back to, or is in at another instance from which its
//! session is to come here. Those that are listened to without being in use are the bridge's to bound, by the same limit.
//!
//! Knows names alone. Plain struct, shared by the workers, the hub and the bridge; the lock is held for one look-up, when a client asks to
//! join, when the last of a namespace has left and when the bridge would stop to listen. Source: Socket.IO server API, "Dynamic
//! namespaces".

use std::{
    collections::HashMap,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::{gateways::Gateway, shrink::shrink, socket_io::ids::Namespace};

/// There are as many as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} dynamic namespaces are in use already")]
pub struct Full {
    /// How many there may be.
    pub limit: usize,
}

/// Which there are.
#[derive(Debug)]
pub struct DynamicNamespaces {
    limit: usize,
    in_use: Mutex<HashMap<Namespace, Weak<InUse>>>,
}

/// One of them, as long as this lives: whoever has a part in it holds it.
#[derive(Debug)]
pub struct InUse {
    namespace: Namespace,
    all: Arc<DynamicNamespaces>,
}

/// The namespace that a client asks to be in. One that a gateway spells out is not counted.
#[derive(Debug)]
pub struct Entered {
    /// Which.
    pub namespace: Namespace,
    /// To be kept for as long as the client is in it, or may come back to it.
    pub in_use: Option<Arc<InUse>>,
}

impl DynamicNamespaces {
    /// Returns none, of at most `limit`.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            in_use: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Namespace, Weak<InUse>>> {
        // A map is never left half-changed, so a panic elsewhere does not spoil it.
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns whether one is in use.
    pub fn is_in_use(&self, namespace: &Namespace) -> bool {
        let all = self.lock();
        // Looked at, not upgraded: what is dropped as the last wants the lock.
        all.get(namespace)
            .is_some_and(|known| known.strong_count() > 0)
    }

    /// Counts the namespace that a client asked for, if it is not in use yet and `gateway` does not spell it out. The name that is
    /// returned is one for all; what was asked is a slice of a whole packet, which would stay in memory with it.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn enter(self: &Arc<Self>, gateway: &Gateway, asked: &Namespace) -> Result<Entered, Full> {
        if let Some(own) = gateway.namespace() {
            return Ok(Entered {
                namespace: own.clone(),
                in_use: None,
            });
        }
        let mut all = self.lock();
        let known = all.get(asked).and_then(Weak::upgrade);
        let in_use = match known {
            Some(known) => known,
            // One that nobody is in any more is about to be taken out, and may be taken over.
            None if all.len() >= self.limit && !all.contains_key(asked) => {
                return Err(Full { limit: self.limit });
            }
            None => {
                let in_use = Arc::new(InUse {
                    namespace: asked.as_str().into(),
                    all: Arc::clone(self),
                });
                all.insert(in_use.namespace.clone(), Arc::downgrade(&in_use));
                in_use
            }
        };
        drop(all);
        Ok(Entered {
            namespace: in_use.namespace.clone(),
            in_use: Some(in_use),
        })
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        // Somebody may have come between the last one's leaving and this.
        if all
            .get(&self.namespace)
            .is_some_and(|known| ptr::eq(known.as_ptr(), self))
        {
            all.remove(&self.namespace);
            shrink(&mut *all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Namespace {
        name.into()
    }

    #[test]
    fn those_that_clients_name_are_counted_once_each_and_as_long_as_somebody_is_in_them() {
        let all = DynamicNamespaces::new(2);
        let orders = Gateway::matching("/orders/{id}");
        let enter = |asked| all.enter(&orders, &name(asked));
        let first = enter("/orders/1").unwrap();
        let again = enter("/orders/1").unwrap();
        let other = enter("/orders/2").unwrap();
        assert_eq!(enter("/orders/3").unwrap_err(), Full { limit: 2 });
        drop(first);
        assert_eq!(enter("/orders/3").unwrap_err(), Full { limit: 2 });
        let one_more = enter("/orders/1").unwrap();
        drop((again, one_more));
        let third = enter("/orders/3").unwrap();
        assert_eq!(enter("/orders/1").unwrap_err(), Full { limit: 2 });
        drop((other, third));
        assert!(all.lock().is_empty());
    }

    #[test]
    fn one_that_a_gateway_spells_out_is_not_counted() {
        let all = DynamicNamespaces::new(0);
        let admin = Gateway::new("/admin");
        let entered = all.enter(&admin, &name("/admin")).unwrap();
        assert_eq!(entered.namespace, name("/admin"));
        assert!(all.lock().is_empty());
    }

    #[test]
    fn a_name_is_kept_once_and_without_the_packet_that_it_came_in() {
        let all = DynamicNamespaces::new(2);
        let orders = Gateway::matching("/orders/{id}");
        let packet = bytestring::ByteString::from("0/orders/1,{\"token\":\"abc\"}");
        let asked = Namespace::new(packet.slice_ref(&packet[1..10]));
        let one = all.enter(&orders, &asked).unwrap();
        let other = all.enter(&orders, &name("/orders/1")).unwrap();
        let at = |entered: &Entered| entered.namespace.as_str().as_ptr();
        assert_eq!(one.namespace.as_str(), "/orders/1");
        assert_ne!(at(&one), asked.as_str().as_ptr());
        assert_eq!(at(&one), at(&other));
    }

    /// The last leaves while somebody comes: whichever is first, the one that came counts.
    #[test]
    fn who_comes_while_the_last_leaves_is_counted() {
        let all = DynamicNamespaces::new(1);
        let orders = Gateway::matching("/orders/{id}");
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (all, orders) = (Arc::clone(&all), orders.clone());
                std::thread::spawn(move || {
                    for _ in 0..20_000 {
                        let entered = all.enter(&orders, &name("/orders/1")).unwrap();
                        let known = all.lock().get("/orders/1").and_then(Weak::upgrade);
                        assert!(known.is_some(), "somebody is in it");
                        drop(entered);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(all.lock().is_empty());
    }
}
