// Requests over REST: POST /v1/completions or /v1/chat/completions of any OpenAI-compatible server,
// streaming.
#pragma once

#include <memory>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "loadtest/client.h"
#include "loadtest/http.h"

namespace sessa::loadtest {

// `io` and what is given to it must outlive the client.
std::unique_ptr<Client> MakeRestClient(boost::asio::io_context* io, const Clock& clock, const HttpUrl& url,
                                       std::vector<boost::asio::ip::tcp::endpoint> endpoints,
                                       RequestOptions options);

}  // namespace sessa::loadtest
