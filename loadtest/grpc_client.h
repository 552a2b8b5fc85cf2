// Requests over gRPC: sessa.v1 Generate, on one connection.
#pragma once

#include <memory>
#include <string>

#include "boost/asio/io_context.hpp"
#include "loadtest/client.h"
#include "loadtest/clock.h"

namespace sessa::loadtest {

// Events are read on a thread of the client's own, which alone touches a call between Send and its end, and
// are timed there. `io` must outlive the client.
std::unique_ptr<Client> MakeGrpcClient(boost::asio::io_context* io, const Clock& clock,
                                       const std::string& address, RequestOptions options);

}  // namespace sessa::loadtest
