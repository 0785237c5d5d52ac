"""A Redis's URL: every shape, and mistakes that say what to write and give nothing away."""

import re

import pytest

from feedsvc.settings.redis_url import RedisAddress


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", RedisAddress("server", (("cache", 6_379),))),
        (
            "redis://ann:p%40ss@cache:1/2",
            RedisAddress("server", (("cache", 1),), db=2, username="ann", password="p@ss"),
        ),
        ("redis://[::1]:1?db=3", RedisAddress("server", (("::1", 1),), db=3)),
        ("redis://cache/1?db=3", RedisAddress("server", (("cache", 6_379),), db=3)),
        ("rediss://cache", RedisAddress("server", (("cache", 6_379),), tls={})),
        (
            "rediss://cache?ssl_ca_certs=/ca.pem&ssl_check_hostname=no&ssl_cert_reqs=none",
            RedisAddress(
                "server",
                (("cache", 6_379),),
                tls={
                    "ssl_ca_certs": "/ca.pem",
                    "ssl_check_hostname": False,
                    "ssl_cert_reqs": "none",
                },
            ),
        ),
        ("unix:///run/redis", RedisAddress("socket", path="/run/redis")),
        (
            "unix://:secret@/run/a%20redis?db=1",
            RedisAddress("socket", path="/run/a redis", db=1, password="secret"),
        ),
        (
            "unix:///run/redis?password=secret",
            RedisAddress("socket", path="/run/redis", password="secret"),
        ),
        (
            "redis+sentinel://ann:one@a,b:2,[::1]:3/feeds/4?sentinel_password=two",
            RedisAddress(
                "sentinel",
                (("a", 26_379), ("b", 2), ("::1", 3)),
                service="feeds",
                db=4,
                username="ann",
                password="one",
                sentinel_password="two",
            ),
        ),
        (
            "rediss+sentinel://a/feeds",
            RedisAddress("sentinel", (("a", 26_379),), service="feeds", tls={}),
        ),
        (
            "redis+cluster://:secret@a:1,b/0",
            RedisAddress("cluster", (("a", 1), ("b", 6_379)), password="secret"),
        ),
        (
            "rediss+cluster://a?ssl_ca_certs=/ca.pem",
            RedisAddress("cluster", (("a", 6_379),), tls={"ssl_ca_certs": "/ca.pem"}),
        ),
    ],
)
def test_every_shape_is_understood(url: str, address: RedisAddress) -> None:
    assert RedisAddress.parse(url) == address
    assert "secret" not in repr(RedisAddress.parse(url))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("cache:6379", "must begin with redis://, rediss://, unix://, redis+sentinel://"),
        ("http://hunter2@cache", "must begin with"),
        ("redis://", "names no host: write host:port"),
        ("redis://:hunter2@", "names no host"),
        ("redis://a,b", "names several hosts: write redis+sentinel:// or redis+cluster://"),
        ("redis://cache:hunter2", "neither host nor host:port"),
        ("redis://cache:65536", "neither host nor host:port"),
        ("redis://a b", "neither host nor host:port"),
        ("redis://cache/hunter2", "no number in its database's place, such as /0"),
        ("redis://:hun/ter2@cache", "must write as %2F"),
        ("redis://:hun?ter2@cache", "must write as %2F"),
        ("redis://:hun#ter2@cache", "must write as %2F"),
        ("redis://cache?socket_timeout=1", "option socket_timeout that redis:// does not take"),
        ("redis://cache?socket_timeout=1", "are redis.timeout and redis.connections"),
        ("redis://cache?Hunter2=1", "has an option that redis:// does not take"),
        ("redis://cache?ssl_ca_certs=/ca.pem", "option ssl_ca_certs that redis:// does not take"),
        ("redis://cache?db=1&db=2", "option db twice"),
        ("rediss://cache?ssl_check_hostname=2", "ssl_check_hostname must be true or false"),
        ("rediss://cache?ssl_cert_reqs=some", "must be required, optional or none"),
        ("unix://", "names no socket: write unix:///path/to/redis"),
        ("unix://run/redis", "has a host, where a socket has none"),
        ("redis+sentinel://a:1", "names no service: write redis+sentinel://host:26379/SERVICE"),
        ("redis+sentinel://a:1/feeds/x", "no number in its database's place"),
        ("redis+cluster://a:1,", "neither host nor host:port"),
        ("redis+cluster://a:1/2", "a cluster has only database 0: leave it out"),
        ("redis+cluster://a:1?db=0", "option db that redis+cluster:// does not take"),
    ],
)
def test_a_mistake_says_what_to_write_and_no_secret(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        RedisAddress.parse(url)
    assert "unter2" not in str(caught.value)
