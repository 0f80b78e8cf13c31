from support.servers import postgres_url, redis_server

__all__ = ["postgres_url", "redis_server"]
