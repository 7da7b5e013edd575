"""moto's S3 server on a free port of the loopback address.

Amazon's refuses an object for a bucket with a default retention that comes without `Content-MD5` and `x-amz-checksum-...`. moto's does too,
but looks for `x-amz-sdk-checksum-algorithm`, which only Amazon's own libraries send: here the checksum itself will do.
"""

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

moto = DomainDispatcherApplication(create_backend_app)


def server(environ, start_response):
    if "HTTP_X_AMZ_CHECKSUM_SHA256" in environ:
        environ.setdefault("HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM", "SHA256")
    return moto(environ, start_response)


run_simple("127.0.0.1", 0, server, threaded=True)
