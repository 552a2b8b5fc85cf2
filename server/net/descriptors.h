// File descriptors are what connections run out of first. The limit is raised at start, and the caps on
// connections are fitted below it, so that a flood on one port cannot take what the other, the probes or the
// process itself need.
#pragma once

#include <cstdint>
#include <string>

namespace sessa {

// Raises this process' soft limit to the hard one; returns the limit that holds then.
int64_t RaiseDescriptorLimit();

// "192.0.2.1:80" or "[2001:db8::1]:80" of the other end of a TCP connection; empty when that is not
// known.
std::string PeerName(int fd);

struct ConnectionCaps {
  int http = 4096;
  int grpc = 1024;
};

// Connections above the cap that are taken all the same on the HTTP port: for probes alone.
inline constexpr int kSpareHttpConnections = 64;
// The client's socket and both ends of the pair that joins it with the library.
inline constexpr int kDescriptorsOfGrpc = 3;

// `wanted`, or as large a part of it, the same of both, as fits below `limit` with a quarter of the limit, at
// most 256, left for all else: files, devices, the admin port, connections that are closing. At least 1 each.
ConnectionCaps FitConnections(ConnectionCaps wanted, int64_t limit);

}  // namespace sessa
