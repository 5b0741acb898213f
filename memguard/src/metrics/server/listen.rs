//! The address at which pages are served, for both kinds of IP where the machine has both.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, listen as listen_on, socket_with, sockopt},
};

use super::ServerError;

/// Connections that wait to be taken.
const BACKLOG: i32 = 128;

/// An address that is taken; who connects waits until it is served.
#[derive(Debug)]
pub struct Listener(pub(super) TcpListener);

/// Takes an address. `[::]` is every address of the machine, those of IPv4 too; where there is no IPv6 it is `0.0.0.0`.
pub fn listen(address: SocketAddr) -> Result<Listener, ServerError> {
    take(address, open).map(Listener).map_err(|source| ServerError::Listen { address, source })
}

fn take(address: SocketAddr, open: impl Fn(SocketAddr) -> io::Result<TcpListener>) -> io::Result<TcpListener> {
    match open(address) {
        Err(error) if is_any(address) && is_without_ipv6(&error) => {
            tracing::debug!("there is no IPv6 here: {address} is taken for IPv4 alone");
            open((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        taken => taken,
    }
}

fn is_any(address: SocketAddr) -> bool {
    address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

/// The kernel was built or booted without it (`ipv6.disable=1`), or no interface may have it.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    // A successor need not wait for the last connections of the one before.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if is_any(address) {
        // Else it is net.ipv6.bindv6only that decides.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)?;
    listen_on(&socket, BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

    #[test]
    fn any_address_is_of_both_kinds() {
        let Listener(listener) = listen(ANY).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        // A machine without IPv6 is what the other test is about.
        if open((Ipv6Addr::LOCALHOST, 0).into()).is_ok() {
            assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, port)).is_ok());
            assert!(!sockopt::ipv6_v6only(&listener).unwrap());
        }
        let error = listen((Ipv4Addr::UNSPECIFIED, port).into()).unwrap_err().to_string();
        assert!(error.contains("--metrics-listen"), "taken for IPv4 too: {error}");
    }

    #[test]
    fn without_ipv6_any_address_is_one_of_ipv4_and_no_other_is() {
        for without in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            let poor = |address: SocketAddr| if address.is_ipv6() { Err(without.into()) } else { open(address) };
            let taken = take(ANY, poor).unwrap().local_addr().unwrap();
            assert_eq!(taken.ip(), Ipv4Addr::UNSPECIFIED);
            let error = take((Ipv6Addr::LOCALHOST, 0).into(), poor).unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(without), "that one was asked for");
        }
        let busy = |_| Err::<TcpListener, _>(Errno::ADDRINUSE.into());
        assert_eq!(take(ANY, busy).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
