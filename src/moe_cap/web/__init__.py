"""The leaderboard in a browser. Handlers read memory only; `snapshot.Mirror` is what looks at the stores."""
