// See tls_context.h.
#include "server/net/tls_context.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/buffer.hpp"
#include "server/file/read_file.h"

namespace sessa {
namespace {

using SslContext = boost::asio::ssl::context;
using ErrorCode = boost::system::error_code;

// In the wire format of ALPN, lengths first.
constexpr unsigned char kHttp[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
constexpr unsigned char kH2[] = {2, 'h', '2'};

template <const unsigned char* kProtocol, unsigned kSize>
int SelectAlpn(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* offered,
               unsigned offered_size, void*) {
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_size, kProtocol, kSize, offered, offered_size) !=
      OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

absl::Status FileError(absl::string_view what, const std::string& path, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("reading the TLS ", what, " ", path, ": ", why));
}

// Asks clients for a certificate that one of these has signed, and tells them the names.
absl::Status RequireClients(SSL_CTX* context, const std::string& pem, const std::string& path) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(
      BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free);
  int count = 0;
  while (X509* read = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    const std::unique_ptr<X509, decltype(&X509_free)> ca(read, &X509_free);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context), ca.get());
    SSL_CTX_add_client_CA(context, ca.get());
    ++count;
  }
  // Else what PEM found at the end, "no start line", would be reported by the next function that fails.
  ERR_clear_error();
  if (count == 0) return FileError("client CA", path, "no certificate in it");
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TlsContext>> TlsContext::Load(TlsFiles files, ConnectionStats* stats) {
  std::unique_ptr<TlsContext> tls(new TlsContext(std::move(files), stats));
  absl::MutexLock lock(&tls->reload_mutex_);
  absl::StatusOr<Pem> pem = tls->Read();
  if (!pem.ok()) return pem.status();
  if (absl::Status used = tls->Use(*pem); !used.ok()) return used;
  return tls;
}

TlsContext::Context TlsContext::For(Listener listener) const {
  absl::MutexLock lock(&mutex_);
  return listener == Listener::kGrpc ? grpc_ : http_;
}

absl::Status TlsContext::Reload() {
  absl::MutexLock lock(&reload_mutex_);
  absl::StatusOr<Pem> pem = Read();
  if (pem.ok() && *pem == in_use_) return absl::OkStatus();
  const absl::Status status = pem.ok() ? Use(*pem) : pem.status();
  stats_->OnTlsReload(status.ok());
  return status;
}

absl::StatusOr<TlsContext::Pem> TlsContext::Read() const {
  const std::pair<const char*, const std::string*> files[] = {
      {"certificate", &files_.cert}, {"key", &files_.key}, {"client CA", &files_.client_ca}};
  Pem pem;
  for (size_t i = 0; i < pem.size(); ++i) {
    const std::string& path = *files[i].second;
    if (path.empty()) continue;
    absl::StatusOr<std::string> text = ReadFile(path);
    if (!text.ok()) return FileError(files[i].first, path, std::string(text.status().message()));
    pem[i] = *std::move(text);
  }
  return pem;
}

absl::Status TlsContext::Use(const Pem& pem) {
  const auto& [cert, key, client_ca] = pem;
  Context contexts[2];
  for (const Listener listener : {Listener::kHttp, Listener::kGrpc}) {
    auto context = std::make_shared<SslContext>(SslContext::tls_server);
    SSL_CTX* ssl = context->native_handle();
    SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION);
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);  // an idle connection keeps no buffers
    // A session that is resumed has a client's certificate only under the same name; another context, as
    // after a reload, resumes nothing of this one's.
    SSL_CTX_set_session_id_context(ssl, reinterpret_cast<const unsigned char*>("sessa"), 5);
    // A key under a password is refused; OpenSSL would ask for it on the terminal.
    SSL_CTX_set_default_passwd_cb(ssl, [](char*, int, int, void*) { return 0; });
    ErrorCode ec;
    context->use_certificate_chain(boost::asio::buffer(cert), ec);
    if (ec) return FileError("certificate", files_.cert, ec.message());
    context->use_private_key(boost::asio::buffer(key), SslContext::pem, ec);
    if (ec) return FileError("key", files_.key, ec.message());
    if (SSL_CTX_check_private_key(ssl) != 1) {
      ERR_clear_error();
      return FileError("key", files_.key, absl::StrCat("is not that of ", files_.cert));
    }
    if (!files_.client_ca.empty()) {
      if (absl::Status required = RequireClients(ssl, client_ca, files_.client_ca); !required.ok())
        return required;
    }
    if (listener == Listener::kGrpc) {
      SSL_CTX_set_alpn_select_cb(ssl, &SelectAlpn<kH2, sizeof(kH2)>, nullptr);
    } else {
      SSL_CTX_set_alpn_select_cb(ssl, &SelectAlpn<kHttp, sizeof(kHttp)>, nullptr);
    }
    contexts[listener == Listener::kGrpc] = std::move(context);
  }
  in_use_ = pem;
  absl::MutexLock lock(&mutex_);
  http_ = std::move(contexts[0]);
  grpc_ = std::move(contexts[1]);
  return absl::OkStatus();
}

}  // namespace sessa
