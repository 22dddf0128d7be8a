module github.com/plausible-webhooks/plausible-webhooks/migrations

go 1.26.0
