package plausible

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// CreatePostgres creates the URL's database and Plausible's tables in it, unless they
// exist already.
func CreatePostgres(ctx context.Context, address string) error {
	if err := createDatabase(ctx, address); err != nil {
		return fmt.Errorf("create Plausible's Postgres database: %w", err)
	}
	tables, err := schema.ReadFile("postgres.sql")
	if err != nil {
		return err
	}
	err = inTransaction(ctx, address, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, string(tables))
		return err
	})
	if err != nil {
		return fmt.Errorf("create Plausible's Postgres tables: %w", err)
	}
	return nil
}

// duplicateDatabase is what Postgres says when another one was quicker.
const duplicateDatabase = "42P04"

func createDatabase(ctx context.Context, address string) error {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return err
	}
	name := config.Database
	config.Database = "postgres"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil || exists {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	if refused := new(pgconn.PgError); errors.As(err, &refused) && refused.Code == duplicateDatabase {
		return nil
	}
	return err
}

// oneAtATime keeps two processes from creating and seeding the same database at the
// same time; the number is of no other meaning.
const oneAtATime = 0x706c6175

func inTransaction(ctx context.Context, address string, do func(pgx.Tx) error) error {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", oneAtATime); err != nil {
			return err
		}
		return do(tx)
	})
}
