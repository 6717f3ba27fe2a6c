"""Access errors of hubs and object stores: network or permissions."""

import socket

_NETWORK = (ConnectionError, TimeoutError, socket.gaierror)
# Of clients whose exceptions have bases of their own.
_NETWORK_NAMES = ("Connect", "Timeout", "ProxyError", "OfflineMode")


def why(place: str, error: BaseException, rights: str = "") -> str:
  """One sentence on what stands between this machine and a place.

  Args:
    place: what was to be reached, the start of the text.
    error: what its client raised.
    rights: what to say of the account where there is a network.

  Returns:
    The network where the client got no connection, as nothing is known of
    rights then; else what the place said.
  """
  text = " ".join(str(error).split()) or type(error).__name__
  if is_network(error):
    return (
      f"{place}: no connection, so check the network first (address, proxy, "
      f"firewall, offline mode), then the name and your rights: {text}"
    )
  return f"{place}: {rights}{text}"


def is_network(error: BaseException) -> bool:
  """Whether an error, or one that it came from, is a missing connection."""
  one: BaseException | None = error
  while one is not None:
    name = type(one).__name__
    if isinstance(one, _NETWORK) or any(n in name for n in _NETWORK_NAMES):
      return True
    one = one.__cause__ or one.__context__
  return False
